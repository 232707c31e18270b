"""Compiles nothing: the launcher runs the artifact's Program."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

from mmfree_compiler.artifact import WEIGHTS, Artifact
from mmfree_compiler.backends.explained import Profile
from mmfree_compiler.backends.interface import Emitted, ProgramPass
from mmfree_compiler.ops import OPS
from mmfree_compiler.program import Program


@dataclass(frozen=True)
class OwnConstants:
    """Copy constants, which may share the memory of the module's parameters.

    Training would change them, and moving the module to shared memory would free them.
    """

    name: ClassVar[str] = "own_constants"

    def __call__(self, program: Program) -> Program:
        copies = {
            name: replace(constant, parts=tuple(part.copy() for part in constant.parts))
            for name, constant in program.constants.items()
        }
        return replace(program, constants=copies)


class ReferenceCompiler:
    """See interface.Compiler."""

    ops = frozenset(name for name, op in OPS.items() if op.kind != "compound")

    def passes(self, program: Program, spec: object) -> tuple[ProgramPass, ...]:  # noqa: ARG002 - the interface
        return (OwnConstants(),)

    def emit(self, program: Program, spec: object) -> Emitted:  # noqa: ARG002 - the interface
        """Emit no builds and no weights: the artifact cannot be saved."""
        return Emitted((), members={WEIGHTS: b""})

    def profile(self, artifact: Artifact, threads: int | None) -> Profile:  # noqa: ARG002 - the interface
        """See explained.Profiler: with the threads that torch takes."""
        from mmfree_compiler.backends.reference.profile import profile

        return profile(artifact)
