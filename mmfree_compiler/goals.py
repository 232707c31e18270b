"""What is compiled for: a target, its options as its backend reads them, and its compiler."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from mmfree_compiler import backends
from mmfree_compiler.backends.interface import Compiler, ProgramPass
from mmfree_compiler.program import Program
from mmfree_compiler.target import Target

Steps = tuple[ProgramPass, ...]


@dataclass(frozen=True)
class Goal:
    """A `target`, in the shortest spelling of its options, which are `spec` to its `compiler`."""

    target: Target
    spec: Any
    compiler: Compiler

    @classmethod
    def of(cls, target: Target) -> Self:
        """Raises TargetError, ToolchainError."""
        backend, spec = backends.of(target)
        return cls(Target(target.kind, str(spec)), spec, backends.compiler(backend))

    def passes(self, program: Program) -> Steps:
        """The target's own passes for a Program that went through those of all targets."""
        return self.compiler.passes(program, self.spec)
