"""The target "numpy": runs language models in NumPy. An example of a backend."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.interface import Backend, Check
from mmfree_compiler.errors import TargetError

if TYPE_CHECKING:
    from mmfree_numpy.compiler import NumpyCompiler
    from mmfree_numpy.launcher import NumpyLauncher


@dataclass(frozen=True)
class Spec:
    """What follows "numpy:" in a target: nothing."""

    def __str__(self) -> str:
        return ""


class NumpyBackend:
    """See mmfree_compiler.backends.interface.Backend."""

    kind = "numpy"
    extra = "mmfree-numpy"
    formats = (".mmfree",)
    options = ()

    def parse(self, options: str) -> Spec:
        if options:
            raise TargetError(f"target 'numpy:{options}'", "takes no options", 'Use "numpy"')
        return Spec()

    def here(self) -> Spec:
        return Spec()

    def checks(self) -> Iterable[Check]:
        yield Check("numpy target", "ok", "runs everywhere")

    def describe(self, artifact: Artifact) -> Mapping[str, str]:
        return {"steps": f"{artifact.members['program.json'].size} bytes of JSON"}

    def compiler(self) -> NumpyCompiler:
        from mmfree_numpy.compiler import NumpyCompiler

        return NumpyCompiler()

    def launcher(self) -> type[NumpyLauncher]:
        from mmfree_numpy.launcher import NumpyLauncher

        return NumpyLauncher


BACKEND: Backend = NumpyBackend()
