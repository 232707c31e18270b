"""Planning memory for values between stages: liveness, then first-fit allocation in arenas."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from mmfree_compiler.backends.cpu.compile.planned import PlannedProgram, Storage
from mmfree_compiler.backends.cpu.strides import LINE, row_stride
from mmfree_compiler.backends.liveness import first_fit, largest_first, lives, roots
from mmfree_compiler.ops import OPS
from mmfree_compiler.program import Loop, Program, Stage, Value, stages_of


@dataclass(frozen=True)
class PlanMemory:
    """Assign an offset to every value that outlives the registers of its stage's tiles.

    Two values interfere if their lives share a stage: threads do not run a stage in lockstep, so
    one thread may still read a value that another has finished with.
    """

    name: ClassVar[str] = "plan_memory"

    def __call__(self, program: Program) -> PlannedProgram:
        """`program` is the result of PackWeights."""
        kinds = _arenas(program)
        order = lives(program, _needed(program, kinds))
        storage: dict[str, Storage] = {}
        arenas: dict[str, int] = {}
        for arena in ("shared", "private", "codes"):
            widths = {name: _stride(program.values[name]) for name in order if kinds[name] == arena}
            offsets, arenas[arena] = first_fit(largest_first(widths), [order])
            storage |= {
                name: Storage(arena, offsets[owner], widths[owner])
                for name, owner in roots(program).items()
                if owner in widths
            }
        sizes = ", ".join(f"{name} {size}" for name, size in arenas.items())
        fields = vars(program.noted(self.name, "arenas", f"elements per token: {sizes}"))
        return PlannedProgram(**fields, storage=storage, arenas=arenas)


def _stride(value: Value) -> int:
    """Elements from row to row: an odd number of cache lines.

    This spreads one column of many tokens' rows over all sets of a cache. Widths of models are
    multiples of high powers of two, which would map the column to a few sets, or to a single one.
    """
    stride, line = row_stride(value), LINE // np.dtype(value.dtype).itemsize
    is_odd = stride // line % 2 == 1
    return stride if is_odd else stride + line


def _arenas(program: Program) -> dict[str, str]:
    """The arena of each value that needs one."""
    needed = {
        name
        for stage in program.stages()
        for node in stage.nodes
        for name in node.inputs
        if name is not None and not any(name in tile.outputs for tile in stage.tiles)
    }
    arenas: dict[str, str] = {}
    for node in program.nodes():
        by_rows = OPS[node.op].kind == "row"
        for name in node.outputs:
            if by_rows:
                arenas[name] = "codes" if program.values[name].dtype == "int8" else "private"
            elif name in needed:
                arenas[name] = "shared"
    for step in program.body:
        if isinstance(step, Loop):
            names = {*step.updates, *step.results, *(n for pair in step.carried for n in pair)}
            arenas |= dict.fromkeys(names, "shared")
    return arenas


def _needed(program: Program, kinds: Collection[str]) -> list[list[list[str]]]:
    """The values that each stage needs in memory, for each step of the body."""
    bodies = [stages_of(step) for step in program.body]
    return [[_named(stage, kinds) for stage in stages] for stages in bodies]


def _named(stage: Stage, kinds: Collection[str]) -> list[str]:
    names = (name for node in stage.nodes for name in (*node.inputs, *node.outputs))
    return [name for name in names if name is not None and name in kinds]
