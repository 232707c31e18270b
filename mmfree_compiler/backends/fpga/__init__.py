"""FPGA backend: programs for a machine of ternary engines, and a simulator that runs them.

compile/ makes programs, run/ runs them; isa/ is the instruction set, and beside these folders lies
what both halves agree on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.explained import BuildFacts
from mmfree_compiler.backends.fpga import spec
from mmfree_compiler.backends.fpga.spec import Spec
from mmfree_compiler.backends.interface import Backend, Check
from mmfree_compiler.backends.projection import Projection
from mmfree_compiler.program import Program

if TYPE_CHECKING:
    from mmfree_compiler.backends.fpga.compile.compiler import FpgaCompiler
    from mmfree_compiler.backends.fpga.run.launcher import FpgaLauncher


class FpgaBackend:
    """See interface.Backend."""

    kind = "fpga"
    extra = "mmfree-compiler[compile]"
    formats = (".mmfree",)
    options: tuple[str, ...] = ()

    def parse(self, options: str) -> Spec:
        return spec.parse(options)

    def here(self) -> Spec:
        return spec.parse("")  # the simulator runs all boards

    def checks(self) -> Iterable[Check]:
        from mmfree_compiler.backends.fpga.board import known_boards

        yield Check("fpga target", "ok", f"simulates {', '.join(known_boards())}")

    def describe(self, artifact: Artifact) -> Mapping[str, str]:
        from mmfree_compiler.backends.fpga.describe import describe

        return describe(artifact)

    def listing(self, artifact: Artifact) -> Mapping[str, str]:
        """See interface.Listing."""
        from mmfree_compiler.backends.fpga.describe import listing

        return listing(artifact)

    def project(self, artifact: Artifact) -> Projection:
        """See projection.Projector."""
        from mmfree_compiler.backends.fpga.project import project_artifact

        return project_artifact(artifact)

    def project_shape(self, program: Program, spec: Spec, shape: str) -> Projection:
        """See projection.Projector."""
        from mmfree_compiler.backends.fpga.project import project_shape

        return project_shape(program, spec, shape)

    def explained(self, artifact: Artifact) -> BuildFacts:
        """See explained.Explained."""
        from mmfree_compiler.backends.fpga.explained import explained

        return explained(artifact)

    def compiler(self) -> FpgaCompiler:
        from mmfree_compiler.backends.fpga.compile.compiler import FpgaCompiler

        return FpgaCompiler()

    def launcher(self) -> type[FpgaLauncher]:
        from mmfree_compiler.backends.fpga.run.launcher import FpgaLauncher

        return FpgaLauncher


BACKEND: Backend = FpgaBackend()
