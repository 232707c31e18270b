"""The memory of a kernel: its arguments, and the address of every value and constant.

Arenas (planned by passes/plan_memory.py, per token): "shared" has values that tiles make and rows
read; "private" and "codes" have values that rows make. In decode every thread makes all rows, so
the last two are per thread. In prefill each thread makes rows of some tokens, so all three are per
token. "scratch" is per thread: the integer sums of a panel, unpacked digits, and the data of matrix
units.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tvm.script import tirx as T
from tvm.tirx.script.builder import ir as I

from mmfree_compiler.artifact import TensorEntry
from mmfree_compiler.backends.cpu.compile.planned import PlannedProgram
from mmfree_compiler.backends.cpu.compile.vector import FLOATS, LANES, Buffer, Expr, load, store
from mmfree_compiler.backends.cpu.strides import (
    LINE,
    float_stride,
    row_stride,
    state_places,
    state_width,
)
from mmfree_compiler.program import Program

ARENAS = {"shared": "float32", "private": "float32", "codes": "int8", "scratch": "uint8"}
SUM = 1  # a scale's row has the scale at 0 and the sum of the codes, as int32 bits, at 1


@dataclass(frozen=True)
class Place:
    """The token, thread, loop iteration and first column of the tile that code works on.

    `first` is the first token that has output rows.
    """

    token: Expr
    thread: Expr
    layer: Expr | None
    first: Expr
    column: Expr = 0


def arguments(program: Program) -> tuple[dict[str, Buffer], tuple[Expr, Expr, Expr]]:
    """Declare the function's parameters, in the order that run/launcher.py passes them."""
    floats = [name for name in program.inputs if program.values[name].dtype == "float32"]
    tables = [name for name, c in program.constants.items() if c.role == "table"]
    inputs = dict.fromkeys(map(input_buffer, floats), "float32")
    rows = dict.fromkeys(map(table_buffer, tables), "uint8")
    outputs = dict.fromkeys(map(output_buffer, program.outputs), "float32")
    states = {"slots": "int32", "state": "float32"}
    kinds = {"weights": "uint8"} | inputs | rows | outputs | states | ARENAS
    # The caller's rows are aligned to their elements only.
    loose = dict.fromkeys(inputs | outputs, 4)
    buffers = {
        name: I.arg(name, I.buffer((I.int64(),), dtype, align=loose.get(name, 64)))
        for name, dtype in kinds.items()
    }
    count, first, threads = (I.arg(name, I.int32()) for name in ("tokens", "first", "threads"))
    return buffers, (count, first, threads)


def input_buffer(name: str) -> str:
    """The argument that an input is read from; the prefix keeps it apart from other arguments."""
    return f"in.{name}"


def table_buffer(name: str) -> str:
    """The argument that has the rows of a table for the tokens' ids."""
    return f"table.{name}"


def output_buffer(name: str) -> str:
    """The argument that an output is written to (a value may be both output and operand)."""
    return f"out.{name}"


@dataclass(frozen=True)
class Memory:
    """Addresses. The constants of `program` have no data.

    `tensors`: the constants' places in weights.bin. `tokens`: the largest M. `together`: how many
    tokens' codes are interleaved line by line (see `codes`). `scratch_bytes`: the size of one
    thread's scratch.
    """

    program: PlannedProgram
    buffers: dict[str, Buffer]
    tensors: Mapping[str, TensorEntry]
    tokens: int
    together: int
    scratch_bytes: int

    def scratch(self, thread: Expr) -> tuple[Buffer, Expr]:
        """The buffer and the first byte of the thread's scratch."""
        return self.buffers["scratch"], thread * self.scratch_bytes

    def width(self, name: str) -> int:
        return self.program.values[name].width

    def stride(self, name: str) -> int:
        """Elements from one token's row to the next, of a value in an arena."""
        return self.program.storage[name].stride

    def row(self, name: str, place: Place) -> tuple[Buffer, Expr]:
        """The buffer and the first element of the token's row of a value."""
        if name in self.program.inputs:
            stride = row_stride(self.program.values[name])
            return self.buffers[input_buffer(name)], place.token * stride
        storage = self.program.storage[name]
        if self.tokens > 1 or storage.arena == "shared":
            at = storage.offset * self.tokens + place.token * storage.stride
        else:
            at = place.thread * self.program.arenas[storage.arena] + storage.offset
        return self.buffers[storage.arena], at

    def codes(self, name: str, place: Place, column: Expr) -> tuple[Buffer, Expr]:
        """The buffer and the element of a token's codes of a value, from a column on.

        The rows of `together` tokens are interleaved: the first lines of all of them, then the
        second lines of all of them, and so on.
        """
        within = place.token % self.together
        buffer, at = self.row(name, replace(place, token=place.token - within))
        return buffer, at + (column // LINE * self.together + within) * LINE + column % LINE

    def load(self, name: str, place: Place, column: Expr, dtype: str = FLOATS) -> Expr:
        buffer, at = self.row(name, place)
        return load(buffer, at + column, dtype)

    def store(self, name: str, place: Place, column: Expr, vector: Expr) -> None:
        buffer, at = self.row(name, place)
        store(buffer, at + column, vector)

    def scalar(self, name: str, place: Place, index: int) -> Expr:
        buffer, at = self.row(name, place)
        return buffer[at + index]

    def constant(self, name: str, layer: Expr | None) -> Expr:
        """The first byte of a constant, or of its part for this iteration if it has several."""
        entry = self.tensors[name]
        start = T.int64(entry.offset)
        if layer is None or entry.count == 1:
            return start
        return start + T.Cast("int64", layer) * T.int64(entry.nbytes // entry.count)

    def tap_stride(self, name: str) -> int:
        """Elements from one tap of a convolution's weight (D, k) to the next."""
        return float_stride(self.program.constants[name].shape[0])

    def table(self, name: str, place: Place) -> tuple[Buffer, Expr]:
        """The buffer and the first byte of the token's row of a table."""
        entry = self.tensors[name]
        part = T.int32(0) if place.layer is None or entry.count == 1 else place.layer
        row = place.token * entry.count + part
        return self.buffers[table_buffer(name)], row * entry.row_bytes

    def floats(self, name: str, layer: Expr | None, column: Expr) -> Expr:
        """16 fp32 of a constant row, or its only element in every lane."""
        if self.program.constants[name].shape[-1] == 1:
            return T.broadcast(self.scalar_constant(name, layer), LANES)
        return self.elements(name, layer, column)

    def elements(self, name: str, layer: Expr | None, first: Expr) -> Expr:
        """16 consecutive fp32 of a constant in memory."""
        at = self.constant(name, layer) + T.Cast("int64", first) * T.int64(4)
        return T.reinterpret(FLOATS, load(self.buffers["weights"], at, "uint8x64"))

    def scalar_constant(self, name: str, layer: Expr | None) -> Expr:
        at = self.constant(name, layer)
        return T.reinterpret("float32", load(self.buffers["weights"], at, "uint8x4"))

    def state(self, name: str, place: Place, part: int = 0) -> tuple[Buffer, Expr]:
        """The buffer and element of a scan's state, row `part` of it, at the place's column."""
        state = state_places(self.program.states)[name]
        at: Expr = state.offset
        if place.layer is not None and state.count > 1:
            at = at + place.layer * state.stride
        row = self.buffers["slots"][place.token] * state_width(self.program.states)
        return self.buffers["state"], row + at + part * state.row + place.column
