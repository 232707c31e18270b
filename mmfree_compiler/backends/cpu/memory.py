"""Where a kernel's data lies: its arguments, and the address of every value and constant.

Arenas (planned by passes/plan_memory.py, per token): "shared" holds what tiles write and rows read;
"private" and "codes" hold what rows make. In decode each thread makes its rows for itself, so the
last two are per thread; in prefill tokens are shared out and all three are per token. "scratch" is
a thread's own: the integer sums of a panel, and what matrix units work in.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from tvm.script import tirx as T
from tvm.tirx.script.builder import ir as I

from mmfree_compiler.artifact import TensorEntry
from mmfree_compiler.backends.cpu.vector import FLOATS, LANES, Buffer, Expr, load, store
from mmfree_compiler.program import LINE, TABLE, VECTOR, Program, round_up

ARENAS = {"shared": "float32", "private": "float32", "codes": "int8", "scratch": "uint8"}
SUM = 1  # a scale's row holds the scale at 0 and the sum of its codes, as int32 bits, here


@dataclass(frozen=True)
class Place:
    """What a piece of code works on: token, thread, loop iteration, first column of the tile."""

    token: Expr
    thread: Expr
    layer: Expr | None
    first: Expr
    column: Expr = 0


def arguments(program: Program) -> tuple[dict[str, Buffer], tuple[Expr, Expr, Expr]]:
    """Declare the function's parameters, in the order that runtime/cpu.py passes them."""
    floats = [name for name in program.inputs if program.values[name].dtype == "float32"]
    tables = [name for name, c in program.constants.items() if c.layout == TABLE]
    inputs = dict.fromkeys(map(input_buffer, floats), "float32")
    rows = dict.fromkeys(map(table_buffer, tables), "uint8")
    outputs = dict.fromkeys(map(output_buffer, program.outputs), "float32")
    states = {"slots": "int32", "state": "float32"}
    kinds = {"weights": "uint8"} | inputs | rows | outputs | states | ARENAS
    # Rows that the caller owns need not be aligned beyond their element.
    loose = dict.fromkeys(inputs | outputs, 4)
    buffers = {
        name: I.arg(name, I.buffer((I.int64(),), dtype, align=loose.get(name, 64)))
        for name, dtype in kinds.items()
    }
    count, first, threads = (I.arg(name, I.int32()) for name in ("tokens", "first", "threads"))
    return buffers, (count, first, threads)


def input_buffer(name: str) -> str:
    """The argument an input is read from, whatever the user called it."""
    return f"in.{name}"


def table_buffer(name: str) -> str:
    """The argument that holds the rows of a table which the tokens' ids name."""
    return f"table.{name}"


def output_buffer(name: str) -> str:
    """The argument an output is written to (a value may be both output and operand)."""
    return f"out.{name}"


@dataclass(frozen=True)
class Memory:
    """Addresses. `tensors`: the constants' places in weights.bin; `tokens`: the largest M;
    `together`: how many tokens' codes lie in lines side by side (see `codes`); `scratch_bytes`: of
    one thread's scratch. The constants' data are not there."""

    program: Program
    buffers: dict[str, Buffer]
    tensors: Mapping[str, TensorEntry]
    tokens: int
    together: int
    scratch_bytes: int

    def scratch(self, thread: Expr) -> tuple[Buffer, Expr]:
        """The buffer and the byte at which the thread's scratch begins."""
        return self.buffers["scratch"], thread * self.scratch_bytes

    def width(self, name: str) -> int:
        return self.program.values[name].width

    def stride(self, name: str) -> int:
        """Elements from one token's row of a value that waits in an arena to the next."""
        return self.program.storage[name].stride

    def row(self, name: str, place: Place) -> tuple[Buffer, Expr]:
        """The buffer and the element at which the token's row of a value begins."""
        if name in self.program.inputs:
            stride = self.program.values[name].stride
            return self.buffers[input_buffer(name)], place.token * stride
        storage = self.program.storage[name]
        if self.tokens > 1 or storage.arena == "shared":
            at = storage.offset * self.tokens + place.token * storage.stride
        else:
            at = place.thread * self.program.arenas[storage.arena] + storage.offset
        return self.buffers[storage.arena], at

    def codes(self, name: str, place: Place, column: Expr) -> tuple[Buffer, Expr]:
        """The buffer and the element of a token's codes of a value, from a column on.

        Rows of `together` tokens are cut into lines: the tokens' first lines follow each other,
        then their second ones.
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
        """First byte of a constant, of its part for this iteration when it has several."""
        entry = self.tensors[name]
        start = T.int64(entry.offset)
        if layer is None or entry.count == 1:
            return start
        return start + T.Cast("int64", layer) * T.int64(entry.nbytes // entry.count)

    def constant_stride(self, name: str) -> int:
        """Elements from one row of a dense constant to the next."""
        return round_up(self.program.constants[name].shape[-1], VECTOR)

    def table(self, name: str, place: Place) -> tuple[Buffer, Expr]:
        """The buffer and the byte at which the token's row of a table begins."""
        entry = self.tensors[name]
        part = T.int32(0) if place.layer is None or entry.count == 1 else place.layer
        row = place.token * entry.count + part
        return self.buffers[table_buffer(name)], row * entry.row_bytes

    def floats(self, name: str, layer: Expr | None, column: Expr) -> Expr:
        """16 fp32 of a constant row, or its only one in every lane."""
        if self.program.constants[name].shape[-1] == 1:
            return T.broadcast(self.scalar_constant(name, layer), LANES)
        return self.elements(name, layer, column)

    def elements(self, name: str, layer: Expr | None, first: Expr) -> Expr:
        """16 fp32 of a constant, as it lies in memory."""
        at = self.constant(name, layer) + T.Cast("int64", first) * T.int64(4)
        return T.reinterpret(FLOATS, load(self.buffers["weights"], at, "uint8x64"))

    def scalar_constant(self, name: str, layer: Expr | None) -> Expr:
        at = self.constant(name, layer)
        return T.reinterpret("float32", load(self.buffers["weights"], at, "uint8x4"))

    def state(self, name: str, place: Place, part: int = 0) -> tuple[Buffer, Expr]:
        """The buffer and element of a scan's state, row `part` of it, at the place's column."""
        at = self.program.state_offset(name)
        slot = self.program.state(name)
        if place.layer is not None and slot.count > 1:
            at = at + place.layer * slot.stride
        row = self.buffers["slots"][place.token] * self.program.state_width
        return self.buffers["state"], row + at + part * slot.row_stride + place.column
