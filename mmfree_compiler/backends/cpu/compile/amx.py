"""Prefill on AMX: int8 matrix tiles, 16 tokens x 16 columns of sums per instruction.

A panel is two tiles of columns. For each product of a stage, the panel's packed weights are
unpacked into the thread's scratch, once for all tokens. The matrix units then multiply them by 32
or 16 tokens at a time: up to four tiles of sums, which stay in registers for all of k. Codes
(memory.py) and digits come from L2, as 1 KiB of contiguous memory per tile register.

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
from mmfree_compiler.backends.cpu.compile.kept import digit_bytes
from mmfree_compiler.backends.cpu.compile.lookups import vbmi_lookup
from mmfree_compiler.backends.cpu.compile.memory import Memory
from mmfree_compiler.backends.cpu.compile.multiply import Tile, prefetch
from mmfree_compiler.backends.cpu.compile.panel import Panel
from mmfree_compiler.backends.cpu.compile.products import BLOCK
from mmfree_compiler.backends.cpu.compile.tuning import Tuning
from mmfree_compiler.backends.cpu.compile.unpack import FIELDS, table
from mmfree_compiler.backends.cpu.compile.vector import LANES, Buffer, Expr
from mmfree_compiler.backends.cpu.strides import LINE, round_up
from mmfree_compiler.program import Constant, Node, Program

ROWS = 16  # of a tile register
ROW = 64  # bytes of a tile register's row
TILE = ROWS * ROW
GROUP = 4  # columns of k in a row of a B tile
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
        """Bytes of the tile configuration and of the digits of the widest product's panel."""
        return BLOCK + self.columns * self._digits

    @property
    def _digits(self) -> int:
        """Bytes of the digits of a tile of columns: whole tile registers."""
        return round_up(digit_bytes(self.program), TILE)

    def ready(
        self, memory: Memory, thread: Expr, start: Expr, count: Expr
    ) -> AbstractContextManager[None]:
        return _configured(memory, thread, T.min(T.int32(ROWS), count - start // ROWS * ROWS))

    def multiply(self, panel: Panel, index: int, node: Node) -> None:
        """Unpack the weights, then multiply them by tokens `panel.start` to `panel.count`."""
        for column in range(panel.columns):
            self._unpack(panel, node, column)
        first, stop = panel.start // ROWS, (panel.count + ROWS - 1) // ROWS
        pairs = I.bind((stop - first) // HALVES)
        with I.serial(0, pairs) as pair:
            self._sweep(panel, index, node, first + pair * HALVES, HALVES)
        with I.If(stop - first > pairs * HALVES), I.Then():
            self._sweep(panel, index, node, stop - 1, 1)

    def _unpack(self, panel: Panel, node: Node, column: int) -> None:
        place = replace(panel.place, column=panel.place.column + column * LANES)
        tile = Tile.of(panel.memory, place, node)
        groups = tile.layout.block // GROUP
        digits, base = panel.scratch(BLOCK + column * self._digits)
        with I.serial(0, tile.blocks) as block:
            byte = I.bind(tile.start + T.Cast("int64", block) * T.int64(BLOCK))
            prefetch(tile.buffer, byte, self.tuning.prefetch)
            packed = I.bind(v.load(tile.buffer, byte, f"uint8x{BLOCK}"))
            for s, field in enumerate(FIELDS[tile.layout.name](packed, BLOCK, vbmi_lookup)):
                v.store(digits, base + (block * groups + s) * ROW, field.digits(), ROW)

    def _sweep(self, panel: Panel, index: int, node: Node, tile: Expr, halves: int) -> None:
        """Multiply `halves` tiles of tokens, from `tile` on, by the panel's columns."""
        cells = list(product(range(halves), range(panel.columns)))
        for half, column in cells:
            _amx("tilezero", _sums(half, column))
        with I.serial(0, -(-_weight(self.program, node).matrix_shape[1] // ROW)) as k:
            for half in range(halves):
                self._load_codes(panel, node, half, tile + half, k)
            for column in range(panel.columns):
                digits = panel.scratch(BLOCK + column * self._digits + k * TILE)
                _tile("tileloadd64", T.int8(DIGITS + column), *digits)
                for half in range(halves):
                    registers = (T.int8(CODES + half), T.int8(DIGITS + column))
                    _amx("tdpbsud", _sums(half, column), *registers)
        for half, column in cells:
            sums = panel.sums(index, column, (tile + half) * ROWS)
            _tile("tilestored64", _sums(half, column), *sums)

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


def _weight(program: Program, node: Node) -> Constant:
    weight = node.inputs[2]
    assert weight is not None
    return program.constants[weight]


def _sums(half: int, column: int) -> Expr:
    return T.int8(half * Amx.columns + column)


def _tile(instruction: str, register: Expr, buffer: Buffer, at: Expr) -> None:
    """Load or store a register, whose rows are contiguous in memory."""
    _amx(instruction, register, T.address_of(buffer[at]), T.int64(ROW))


def _amx(instruction: str, *operands: Expr) -> None:
    I.evaluate(T.call_llvm_intrin("void", f"llvm.x86.{instruction}", *operands))
