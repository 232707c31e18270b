"""The map of the device's memory: the stream and tables, then what a run reads and writes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

import numpy as np

from mmfree_compiler.artifact import TensorEntry, pack_constants
from mmfree_compiler.artifact.weights import Bytes
from mmfree_compiler.backends.fpga.compile.draft import Part, place
from mmfree_compiler.backends.fpga.compile.stream import NUMBERS
from mmfree_compiler.backends.fpga.facts import IDS, LOGITS, MOST_STEPS
from mmfree_compiler.backends.fpga.isa.word import most
from mmfree_compiler.backends.fpga.strides import LINE, packed_lines, round_up, row_lines
from mmfree_compiler.program import DENSE, Array, Constant, Program, StateSlot

STREAM = "stream"


@dataclass(frozen=True)
class WholeLines:
    """The layout of a table whose rows are filled up to whole lines."""

    name: str = "whole_lines"

    def pack(self, table: Array) -> Array:
        width, per_line = table.shape[1], LINE // table.dtype.itemsize
        return np.pad(table, ((0, 0), (0, round_up(width, per_line) - width)))

    def unpack(self, part: Array, shape: tuple[int, ...]) -> Array:
        return part.reshape(shape[0], -1)[:, : shape[1]]


@dataclass(frozen=True)
class Map:
    """The first line of each place, and the lines of weights and of what follows them."""

    places: dict[str, int]
    weights: int
    behind: int


def memory_map(program: Program, parts: Iterable[Part], tokens: int) -> Map:
    """The stream of `parts` from line 0 on, then tables, then what a run of `tokens` needs."""
    places = {STREAM: 0}
    end = sum(part.lines for part in parts)
    for constant in _tables(program):
        places[place("table", constant.name)] = end
        end += sum(-(-part.nbytes // LINE) for part in constant.parts)
    weights = end
    for name, size in _sizes(program, tokens):
        places[name] = end
        end += size
    return Map(places, weights, end - weights)


def constants(program: Program, parts: Iterable[Part]) -> tuple[Bytes, dict[str, TensorEntry]]:
    """weights.bin as the map has it, and the tensors of the model in it."""
    streamed = (constant for part in parts for constant in part.constants())
    weights, tensors = pack_constants(_unique([*streamed, *_tables(program)]))
    own = {name: entry for name, entry in tensors.items() if not name.startswith(NUMBERS)}
    return weights, own


def _tables(program: Program) -> list[Constant]:
    return [_table(c) for c in program.constants.values() if c.role == "table"]


def _table(constant: Constant) -> Constant:
    parts = tuple(map(WholeLines().pack, constant.parts))
    whole = parts[0].shape == constant.shape
    return replace(constant, parts=parts, layout=DENSE if whole else WholeLines())


def _unique(constants: Iterable[Constant]) -> Iterator[Constant]:
    """A weight may be in the stream more than once."""
    taken: set[str] = set()
    for constant in constants:
        name = constant.name
        while name in taken:
            name += "'"
        taken.add(name)
        yield replace(constant, name=name)


def _sizes(program: Program, tokens: int) -> Iterator[tuple[str, int]]:
    for name in program.inputs:
        value = program.values[name]
        if value.dtype == "float32":
            yield place("input", name), tokens * row_lines(value.width)
    for number, name in enumerate(program.outputs):
        width = program.values[name].width
        yield place("output", str(number)), tokens * row_lines(width)
    for slot in program.states:
        yield place("state", slot.name), tokens * slot.count * state_lines(slot)
    if program.kind == "lm":
        yield IDS, most_steps(program) * packed_lines(tokens, 8)
        yield LOGITS, tokens * logit_stride(program)


def most_steps(program: Program) -> int:
    """The steps of a run: MOST_STEPS, or as many as logits of a sequence fit a store's stride."""
    return max(1, min(MOST_STEPS, most("c") // _logit_lines(program)))


def logit_stride(program: Program) -> int:
    """Lines of a sequence's logits of all steps."""
    return most_steps(program) * _logit_lines(program)


def _logit_lines(program: Program) -> int:
    return row_lines(program.values[program.outputs[0]].width)


def state_lines(slot: StateSlot) -> int:
    """Lines of a state of one sequence and one iteration."""
    *leading, width = slot.shape
    return int(np.prod(leading, dtype=int)) * row_lines(width)
