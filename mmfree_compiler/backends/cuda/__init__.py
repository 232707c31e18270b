"""CUDA backend: Triton kernels for NVIDIA GPUs, launched by the driver.

compile/ makes them, run/ runs them; this folder has the parts that both share.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.cuda import describe, explained, spec
from mmfree_compiler.backends.cuda.spec import Spec
from mmfree_compiler.backends.explained import BuildFacts
from mmfree_compiler.backends.interface import Backend, Check

if TYPE_CHECKING:
    from mmfree_compiler.backends.cuda.compile.compiler import CudaCompiler
    from mmfree_compiler.backends.cuda.run.embedded import CudaKernels
    from mmfree_compiler.backends.cuda.run.launcher import CudaLauncher


class CudaBackend:
    """See interface.Backend."""

    kind = "cuda"
    extra = "mmfree-compiler[cuda]"
    formats = (".mmfree",)
    options = ("device",)

    def parse(self, options: str) -> Spec:
        return spec.parse(options)

    def here(self) -> Spec:
        return spec.here()

    def checks(self) -> Iterable[Check]:
        from mmfree_compiler.backends.cuda.checks import checks

        return checks()

    def describe(self, artifact: Artifact) -> Mapping[str, str]:
        return describe.describe(artifact)

    def explained(self, artifact: Artifact) -> BuildFacts:
        """See explained.Explained."""
        return explained.explained(artifact)

    def compiler(self) -> CudaCompiler:
        from mmfree_compiler.backends.cuda.compile.compiler import CudaCompiler

        return CudaCompiler()

    def launcher(self) -> type[CudaLauncher]:
        from mmfree_compiler.backends.cuda.run.launcher import CudaLauncher

        return CudaLauncher

    def kernels(self) -> type[CudaKernels]:
        from mmfree_compiler.backends.cuda.run.embedded import CudaKernels

        return CudaKernels


BACKEND: Backend = CudaBackend()
