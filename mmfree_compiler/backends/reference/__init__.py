"""Reference backend: runs each op's own reference in torch. For checks, tests and `verify`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.interface import Backend, Check
from mmfree_compiler.errors import TargetError

if TYPE_CHECKING:
    from mmfree_compiler.backends.reference.compiler import ReferenceCompiler
    from mmfree_compiler.backends.reference.launcher import ReferenceLauncher


@dataclass(frozen=True)
class Spec:
    """The reference target has no options."""

    def __str__(self) -> str:
        return ""


class ReferenceBackend:
    """See interface.Backend."""

    kind = "reference"
    extra = "mmfree-compiler[compile]"
    formats: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    def parse(self, options: str) -> Spec:
        if options:
            raise TargetError(
                f"target 'reference:{options}'", "takes no options", 'Use "reference"'
            )
        return Spec()

    def here(self) -> Spec:
        return Spec()

    def checks(self) -> Iterable[Check]:
        return ()

    def describe(self, artifact: Artifact) -> Mapping[str, str]:  # noqa: ARG002 - the interface
        return {}

    def compiler(self) -> ReferenceCompiler:
        from mmfree_compiler.backends.reference.compiler import ReferenceCompiler

        return ReferenceCompiler()

    def launcher(self) -> type[ReferenceLauncher]:
        from mmfree_compiler.backends.reference.launcher import ReferenceLauncher

        return ReferenceLauncher


BACKEND: Backend = ReferenceBackend()
