"""Planning memory for values between stages: liveness, then first-fit allocation in arenas."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import networkx as nx
import numpy as np

from mmfree_compiler.backends.cpu.compile.planned import PlannedProgram, Storage
from mmfree_compiler.backends.cpu.strides import LINE, row_stride
from mmfree_compiler.ops import OPS
from mmfree_compiler.program import Loop, Program, Value


@dataclass
class _Life:
    """A piece of storage: the values that share it, and the first and last stage that need it."""

    arena: str
    width: int
    names: list[str] = field(default_factory=list)
    first: int = 1 << 30
    last: int = -1

    def touch(self, stage: int) -> None:
        self.first, self.last = min(self.first, stage), max(self.last, stage)


@dataclass(frozen=True)
class PlanMemory:
    """Assign an offset to every value that outlives the registers of its stage's tiles.

    Two values interfere if their lives share a stage: threads do not run a stage in lockstep, so
    one thread may still read a value that another has finished with.
    """

    name: ClassVar[str] = "plan_memory"

    def __call__(self, program: Program) -> PlannedProgram:
        """`program` is the result of PackWeights."""
        lives = _lives(program)
        storage: dict[str, Storage] = {}
        arenas: dict[str, int] = {}
        for arena in ("shared", "private", "codes"):
            here = [life for life in lives if life.arena == arena]
            offsets, arenas[arena] = _first_fit(here)
            for life, offset in zip(here, offsets, strict=True):
                place = Storage(arena, offset, life.width)
                storage |= dict.fromkeys(life.names, place)
        sizes = ", ".join(f"{name} {size}" for name, size in arenas.items())
        fields = vars(program.noted(self.name, "arenas", f"elements per token: {sizes}"))
        return PlannedProgram(**fields, storage=storage, arenas=arenas)


def _lives(program: Program) -> list[_Life]:
    arenas = _arenas(program)
    loops = [step for step in program.body if isinstance(step, Loop)]
    same = {name: name for name in arenas}
    for loop in loops:
        for (initial, inside), update, result in zip(
            loop.carried, loop.updates, loop.results, strict=True
        ):
            same |= dict.fromkeys((inside, update, result), initial)
    lives: dict[str, _Life] = {}
    for stage, name in _touches(program):
        if name in arenas:
            root = _root(same, name)
            life = lives.setdefault(root, _Life(arenas[root], _stride(program.values[root])))
            life.touch(stage)
            if name not in life.names:
                life.names.append(name)
    return list(lives.values())


def _root(same: Mapping[str, str], name: str) -> str:
    """The value whose place this one shares: a loop may start from the result of another."""
    while same[name] != name:
        name = same[name]
    return name


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


def _touches(program: Program) -> Iterator[tuple[int, str]]:
    """(stage number, value) for each stage that needs a value in memory."""
    at = 0
    for step in program.body:
        start = at
        stages = step.body if isinstance(step, Loop) else (step,)
        for stage in stages:
            for node in stage.nodes:
                yield from ((at, name) for name in (*node.inputs, *node.outputs) if name)
            at += 1
        if isinstance(step, Loop):
            yield from _held(step, start, at - 1)


def _held(loop: Loop, first: int, last: int) -> Iterator[tuple[int, str]]:
    """Values that every iteration reads, and values that are carried, live throughout the loop."""
    nodes = [node for stage in loop.body for node in stage.nodes]
    made = {name for node in nodes for name in node.outputs}
    outer = {name for node in nodes for name in node.inputs if name and name not in made}
    for name in (*sorted(outer), *(name for pair in loop.carried for name in pair), *loop.updates):
        yield first, name
        yield last, name
    yield from ((last, name) for name in loop.results)


def _first_fit(lives: list[_Life]) -> tuple[list[int], int]:
    """The offset of each, the lowest free one, widest first; and the arena's size."""
    graph = nx.Graph()
    graph.add_nodes_from(range(len(lives)))
    graph.add_edges_from(
        (i, j)
        for i, a in enumerate(lives)
        for j, b in enumerate(lives[:i])
        if a.first <= b.last and b.first <= a.last
    )
    offsets: dict[int, int] = {}
    for i in sorted(graph, key=lambda i: (-lives[i].width, i)):
        taken = sorted((offsets[j], lives[j].width) for j in graph[i] if j in offsets)
        at = 0
        for start, width in taken:
            if start >= at + lives[i].width:
                break
            at = max(at, start + width)
        offsets[i] = at
    size = max((offsets[i] + lives[i].width for i in offsets), default=0)
    return [offsets[i] for i in range(len(lives))], size
