"""Compiles nothing: the launcher runs the artifact's Program."""

from __future__ import annotations

from mmfree_compiler.artifact import WEIGHTS
from mmfree_compiler.backends.interface import Emitted, ProgramPass
from mmfree_compiler.ops import OPS
from mmfree_compiler.program import Program


class ReferenceCompiler:
    """See interface.Compiler."""

    ops = frozenset(name for name, op in OPS.items() if op.kind != "compound")

    def passes(self, program: Program, spec: object) -> tuple[ProgramPass, ...]:  # noqa: ARG002 - the interface
        return ()

    def emit(self, program: Program, spec: object) -> Emitted:  # noqa: ARG002 - the interface
        """Emit no builds and no weights: the artifact cannot be saved."""
        return Emitted((), members={WEIGHTS: b""})
