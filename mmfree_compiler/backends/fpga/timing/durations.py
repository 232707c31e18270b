"""How long an instruction takes, from its row of the table and the numbers of a board."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from mmfree_compiler.backends.fpga.board import Board
from mmfree_compiler.backends.fpga.isa.opcode import Counts, Instruction
from mmfree_compiler.backends.fpga.isa.steps import latency
from mmfree_compiler.backends.fpga.isa.tmm import FORMATS
from mmfree_compiler.backends.fpga.isa.word import COUNTS
from mmfree_compiler.backends.fpga.layouts import Trits
from mmfree_compiler.backends.fpga.strides import LINE, packed_lines, row_lines


@dataclass(frozen=True)
class Duration:
    """`busy` cycles in which the unit takes its operands, and `latency` cycles until the last
    result. `streamed` are lines that it takes from the stream, `moved` those that DMA moves.
    """

    busy: int
    latency: int = 0
    streamed: int = 0
    moved: int = 0


@dataclass(frozen=True)
class Durations:
    """Those of a board, for runs on `counts` rows."""

    board: Board
    layout: Trits
    counts: Counts

    def of(self, i: Instruction) -> Duration:
        return _UNITS[i.opcode.unit](self, i)

    def rows(self, i: Instruction) -> int:
        """The number of rows that it works on."""
        named = [operand.count for operand in i.opcode.operands if operand.count]
        return self.counts[COUNTS.index(named[0]) if named else i.rows]

    @property
    def lines_per_cycle(self) -> float:
        """Lines that the device's memory delivers in a cycle."""
        dram = self.board.dram
        per_second = dram.gigabytes_per_second * 1e9 * dram.efficiency
        return per_second / (self.board.clock_mhz * 1e6) / LINE


def _lanes(d: Durations, i: Instruction) -> Duration:
    """ROW and VEC: all passes over a row, row after row. `conv` reads a row for each tap."""
    passes = i.m if i.opcode.name == "conv" else i.opcode.passes
    # A scan's next row needs its last one, so it takes at least the pipeline's length.
    depth = latency(i.opcode.steps)
    row = passes * -(-i.n // d.board.vector_lanes)
    per_row = max(row, depth) if i.opcode.name == "scan" else row
    return Duration(max(1, d.rows(i) * per_row), depth)


def _tmm(d: Durations, i: Instruction) -> Duration:
    if i.opcode.name == "params":
        lines = packed_lines(i.n, FORMATS[i.opcode.modes[i.mode]])
        return Duration(row_lines(i.n), 0, lines)
    tiles, blocks = d.layout.tiles(i.n), d.layout.blocks(i.m)
    steps = -(-tiles // d.board.engines) * blocks
    busy = 1 + steps * max(1, d.rows(i))
    return Duration(busy, latency(i.opcode.steps), 1 + tiles * blocks)


def _dma(d: Durations, i: Instruction) -> Duration:
    if i.opcode.name == "store_ids":
        lines = packed_lines(d.rows(i), 8)
    elif i.opcode.name == "gather":
        lines = d.rows(i) * packed_lines(i.n, FORMATS[i.opcode.modes[i.mode]])
    else:
        lines = d.rows(i) * row_lines(i.n)
    cycles = -(-lines // min(1.0, d.lines_per_cycle))
    return Duration(max(1, int(cycles)), d.board.dram.latency_cycles, 0, lines)


_UNITS: Mapping[str, Callable[[Durations, Instruction], Duration]] = {
    "dma": _dma,
    "row": _lanes,
    "tmm": _tmm,
    "vec": _lanes,
}
