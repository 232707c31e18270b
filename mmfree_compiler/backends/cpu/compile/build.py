"""Compiling the libraries of a Program."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from importlib.metadata import version

from mmfree_compiler.artifact import TensorEntry
from mmfree_compiler.backends.cpu.compile.codegen import library, shows_code
from mmfree_compiler.backends.cpu.compile.isa import ISAS, tuned
from mmfree_compiler.backends.cpu.compile.packed import reading
from mmfree_compiler.backends.cpu.compile.planned import PlannedProgram
from mmfree_compiler.backends.cpu.compile.toolchain import identity
from mmfree_compiler.backends.cpu.compile.tuning import Tuning
from mmfree_compiler.building import cache
from mmfree_compiler.building.jobs import pieces, sources


@dataclass(frozen=True)
class Recipe:
    """How a variant is compiled: the layout of the weights that it reads, and its settings."""

    layout: str
    tuning: Tuning


@dataclass(frozen=True)
class Job:
    """A program without its constants' data, the constants' places, and each variant's recipe.

    See building.jobs.Job; its pieces are libraries.
    """

    program: PlannedProgram
    tensors: Mapping[str, TensorEntry]
    recipes: Mapping[str, Recipe]

    @classmethod
    def of(
        cls,
        program: PlannedProgram,
        tensors: Mapping[str, TensorEntry],
        recipes: Mapping[str, Recipe],
    ) -> Job:
        bare = {name: replace(c, parts=()) for name, c in program.constants.items()}
        return cls(replace(program, constants=bare, notes=()), tensors, recipes)

    def read_by(self, name: str) -> PlannedProgram:
        """The program of a variant, with only the constants that it reads."""
        program = reading(self.program, self.recipes[name].layout)
        read = {operand for node in program.nodes() for operand in node.inputs}
        constants = {name: c for name, c in program.constants.items() if name in read}
        return replace(program, constants=constants, layouts={})

    def key(self, name: str) -> str:
        """The cache key of a variant's library: everything that its bytes depend on."""
        triple = ISAS[name].triple
        made_by = (sources(), version("apache-tvm"), version("apache-tvm-ffi"), identity(triple))
        about = (name, self.recipes[name], repr(self.read_by(name)), self.tensors)
        return cache.key(*made_by, *about)

    def compile(self, name: str) -> bytes:
        isa = tuned(name, self.recipes[name].tuning)
        return library(self.read_by(name), isa, self.tensors)

    def apart(self, name: str) -> bool:  # noqa: ARG002 - see building.jobs.Job
        return False

    def hint(self) -> str:
        return "If memory ran out, compile fewer variants: --target cpu:VARIANT"


def libraries(
    program: PlannedProgram, tensors: Mapping[str, TensorEntry], recipes: Mapping[str, Recipe]
) -> dict[str, bytes]:
    """The ELF library of each variant of `recipes`, in that order.

    `tensors` are the constants' places in weights.bin. Raises ToolchainError.
    """
    job, names = Job.of(program, tensors, recipes), tuple(recipes)
    if shows_code():
        return {name: job.compile(name) for name in names}
    return pieces(job, names)
