"""CPU backend: native kernels for several instruction sets.

compile/ makes them, run/ runs them; this folder has the parts that both share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.cpu import describe, explained, spec
from mmfree_compiler.backends.cpu.features import lacks
from mmfree_compiler.backends.cpu.spec import Spec
from mmfree_compiler.backends.cpu.variants import VARIANTS
from mmfree_compiler.backends.explained import BuildFacts
from mmfree_compiler.backends.interface import Backend, Check
from mmfree_compiler.errors import TargetError

if TYPE_CHECKING:
    from mmfree_compiler.backends.cpu.compile.compiler import CpuCompiler
    from mmfree_compiler.backends.cpu.run.launcher import CpuLauncher


class CpuBackend:
    """See interface.Backend."""

    kind = "cpu"
    extra = "mmfree-compiler[cpu]"
    formats = (".mmfree",)
    options = ("threads",)

    def parse(self, options: str) -> Spec:
        return spec.parse(options)

    def here(self) -> Spec:
        for name, variant in VARIANTS.items():
            if not lacks(variant):
                return Spec((name,))
        cause = "cannot run any variant of the cpu target"
        raise TargetError("this machine", cause, "Use an x86-64 Linux machine")

    def checks(self) -> Iterable[Check]:
        from mmfree_compiler.backends.cpu.checks import checks

        return checks()

    def describe(self, artifact: Artifact) -> Mapping[str, str]:
        return describe.describe(artifact)

    def explained(self, artifact: Artifact) -> BuildFacts:
        """See explained.Explained."""
        return explained.explained(artifact)

    def compiler(self) -> CpuCompiler:
        from mmfree_compiler.backends.cpu.compile.compiler import CpuCompiler

        return CpuCompiler()

    def launcher(self) -> type[CpuLauncher]:
        from mmfree_compiler.backends.cpu.run.launcher import CpuLauncher

        return CpuLauncher


BACKEND: Backend = CpuBackend()
