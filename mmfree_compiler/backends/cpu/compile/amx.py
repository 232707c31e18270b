"""Prefill on AMX: int8 matrix tiles, 16 tokens x 16 columns of sums per instruction.

A panel is two tiles of columns. For each product of a stage, the panel's packed weights are
unpacked part by part, into scratch of the thread that stays in L1. The matrix units then multiply
the part by all tokens, 32 or 16 at a time: up to four tiles of sums, which stay in registers for
the part and in L1 between parts. Codes (memory.py) come from L2. A tile register is 1 KiB of
contiguous memory. Unpacked weights of all k at once would save loads and stores of sums, but go
through L2: as fast for 128 tokens, and slower for fewer.

A row of a B tile is four columns of k for 16 columns of the panel: exactly one field of a packed
block. Codes are signed, digits unsigned; the epilogue subtracts the sum of the codes, as for all
instruction sets. Intel's manual describes the tiles in volume 1, chapter 18, and the instructions
in volume 2.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from tvm.script import tirx as T
from tvm.tirx.script.builder import ir as I

from mmfree_compiler.backends.cpu.compile import vector as v
from mmfree_compiler.backends.cpu.compile.lookups import vbmi_lookup
from mmfree_compiler.backends.cpu.compile.memory import Memory
from mmfree_compiler.backends.cpu.compile.multiply import Tile, prefetch
from mmfree_compiler.backends.cpu.compile.panel import Panel
from mmfree_compiler.backends.cpu.compile.products import BLOCK
from mmfree_compiler.backends.cpu.compile.tuning import Tuning
from mmfree_compiler.backends.cpu.compile.unpack import FIELDS, table
from mmfree_compiler.backends.cpu.compile.vector import LANES, Buffer, Expr
from mmfree_compiler.backends.cpu.strides import LINE
from mmfree_compiler.program import Node, Program

ROWS = 16  # of a tile register
ROW = 64  # bytes of a tile register's row
TILE = ROWS * ROW
GROUP = 4  # columns of k in a row of a B tile
STEPS = 5  # of k, one tile register each, in a part: whole blocks of all layouts
PART = STEPS * ROW  # columns of k
HALVES = 2  # tiles of tokens that are multiplied at once
# Numbers of tile registers: the sums of all halves first, then the codes of each half, then digits.
CODES, DIGITS, REGISTERS = 4, 6, 8


@dataclass(frozen=True)
class Amx:
    """The engine (panel.Engine) for AMX: two by two registers of 16 x 16 sums."""

    program: Program
    tuning: Tuning
    columns = 2
    together = ROWS

    @property
    def reserved(self) -> int:
        """Bytes of the tile configuration and of the digits of a panel's part."""
        return BLOCK + self.columns * STEPS * TILE

    def ready(
        self, memory: Memory, thread: Expr, start: Expr, count: Expr
    ) -> AbstractContextManager[None]:
        return _configured(memory, thread, T.min(T.int32(ROWS), count - start // ROWS * ROWS))

    def multiply(self, panel: Panel, index: int, node: Node) -> None:
        """Multiply the weights by tokens `panel.start` to `panel.count`, part by part."""
        first, stop = panel.start // ROWS, (panel.count + ROWS - 1) // ROWS
        pairs = I.bind((stop - first) // HALVES)
        with I.serial(0, -(-_columns(self.program, node) // PART)) as part:
            for column in range(panel.columns):
                self._unpack(panel, node, column, part)
            with I.serial(0, pairs) as pair:
                self._sweep(panel, index, node, part, first + pair * HALVES, HALVES)
            with I.If(stop - first > pairs * HALVES), I.Then():
                self._sweep(panel, index, node, part, stop - 1, 1)

    def _unpack(self, panel: Panel, node: Node, column: int, part: Expr) -> None:
        place = replace(panel.place, column=panel.place.column + column * LANES)
        tile = Tile.of(panel.memory, place, node)
        groups, blocks = tile.layout.block // GROUP, PART // tile.layout.block
        digits, base = _digits(panel, column)
        first = I.bind(part * blocks)
        with I.serial(0, T.min(T.int32(blocks), tile.blocks - first)) as block:
            byte = I.bind(tile.start + T.Cast("int64", first + block) * T.int64(BLOCK))
            prefetch(tile.buffer, byte, self.tuning.prefetch)
            packed = I.bind(v.load(tile.buffer, byte, f"uint8x{BLOCK}"))
            for s, field in enumerate(FIELDS[tile.layout.name](packed, BLOCK, vbmi_lookup)):
                v.store(digits, base + (block * groups + s) * ROW, field.digits(), ROW)

    def _sweep(
        self, panel: Panel, index: int, node: Node, part: Expr, tile: Expr, halves: int
    ) -> None:
        """Add the products of `halves` tiles of tokens, from `tile` on, to the panel's sums."""
        cells = {
            (half, column): panel.sums(index, column, (tile + half) * ROWS)
            for half, column in product(range(halves), range(panel.columns))
        }
        with I.If(part == 0):
            with I.Then():
                for cell in cells:
                    _amx("tilezero", _sums(*cell))
            with I.Else():
                for cell, sums in cells.items():
                    _tile("tileloadd64", _sums(*cell), *sums)
        first = I.bind(part * STEPS)
        steps = -(-_columns(self.program, node) // ROW)
        with I.serial(0, T.min(T.int32(STEPS), steps - first)) as k:
            for half in range(halves):
                self._load_codes(panel, node, half, tile + half, first + k)
            for column in range(panel.columns):
                buffer, at = _digits(panel, column)
                _tile("tileloadd64", T.int8(DIGITS + column), buffer, at + k * TILE)
                for half in range(halves):
                    registers = (T.int8(CODES + half), T.int8(DIGITS + column))
                    _amx("tdpbsud", _sums(half, column), *registers)
        for cell, sums in cells.items():
            _tile("tilestored64", _sums(*cell), *sums)

    def _load_codes(self, panel: Panel, node: Node, half: int, tile: Expr, k: Expr) -> None:
        codes = node.inputs[0]
        assert codes is not None
        place = replace(panel.place, token=tile * ROWS)
        _tile("tileloadd64", T.int8(CODES + half), *panel.memory.codes(codes, place, k * LINE))


@contextmanager
def _configured(memory: Memory, thread: Expr, rows: Expr) -> Iterator[None]:
    """Configure registers of 16 rows; sums and codes get fewer rows if there are fewer tokens."""
    buffer, at = memory.scratch(thread)
    setting = np.zeros(BLOCK, np.uint8)
    setting[0] = 1  # the palette
    setting[16:32:2] = ROW  # bytes per row of eight tiles, as uint16
    setting[48 : 48 + REGISTERS] = ROWS
    v.store(buffer, at, table(setting), BLOCK)
    with I.serial(48, 48 + DIGITS) as register:
        # A configuration without rows would be invalid.
        I.buffer_store(buffer, T.Cast("uint8", T.max(T.int32(1), rows)), [at + register])
    _amx("ldtilecfg", T.address_of(buffer[at]))
    yield
    _amx("tilerelease")


def _columns(program: Program, node: Node) -> int:
    """K of a product."""
    weight = node.inputs[2]
    assert weight is not None
    return program.constants[weight].matrix_shape[1]


def _digits(panel: Panel, column: int) -> tuple[Buffer, Expr]:
    """The place of the digits of a tile of columns, of one part."""
    return panel.scratch(T.int32(BLOCK + column * STEPS * TILE))


def _sums(half: int, column: int) -> Expr:
    return T.int8(half * Amx.columns + column)


def _tile(instruction: str, register: Expr, buffer: Buffer, at: Expr) -> None:
    """Load or store a register, whose rows are contiguous in memory."""
    _amx(instruction, register, T.address_of(buffer[at]), T.int64(ROW))


def _amx(instruction: str, *operands: Expr) -> None:
    I.evaluate(T.call_llvm_intrin("void", f"llvm.x86.{instruction}", *operands))
