"""Prefill on AMX: int8 matrix tiles, 16 tokens x 16 columns of sums an instruction.

A panel is two tiles of columns. For each product of a stage the panel's packed weights are unpacked
into the thread's scratch, once for all tokens; the matrix units then sweep the tokens, 32 or 16 at
a time, over what lies there: up to four tiles of sums, which stay in registers for all of k. Codes
(memory.py) and digits come from L2, 1 KiB that lies together for each tile register.

A row of a B tile is four columns of k for 16 columns of the panel: exactly one field of a packed
block. Codes are signed, digits unsigned; the epilogue subtracts the sum of the codes, as
everywhere. Intel's manual, volume 1, chapter 18, has the tiles; volume 2 the instructions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace
from itertools import product

import numpy as np
from tvm.script import tirx as T
from tvm.tirx.script.builder import ir as I

from mmfree_compiler.backends.cpu import vector as v
from mmfree_compiler.backends.cpu.lookups import vbmi_lookup
from mmfree_compiler.backends.cpu.memory import Memory
from mmfree_compiler.backends.cpu.multiply import Tile, prefetch
from mmfree_compiler.backends.cpu.panel import Panel, products
from mmfree_compiler.backends.cpu.products import BLOCK
from mmfree_compiler.backends.cpu.tuning import Tuning
from mmfree_compiler.backends.cpu.unpack import FIELDS, table
from mmfree_compiler.backends.cpu.vector import LANES, Buffer, Expr
from mmfree_compiler.layouts import LAYOUTS
from mmfree_compiler.program import LINE, Constant, Node, Program, round_up

ROWS = 16  # of a tile register
ROW = 64  # bytes of a tile register's row
TILE = ROWS * ROW
GROUP = 4  # columns of k in a row of a B tile
HALVES = 2  # tiles of tokens that are swept at once
# Tile registers: sums first, half by half, then codes, one for each half, then digits.
CODES, DIGITS, REGISTERS = 4, 6, 8


@dataclass(frozen=True)
class Amx:
    """The engine (panel.Engine): sums of 16 x 16 a register, two by two of them."""

    program: Program
    tuning: Tuning
    columns = 2
    together = ROWS

    @property
    def reserved(self) -> int:
        """The configuration, and the digits of the widest product's panel."""
        return BLOCK + self.columns * self._digits

    @property
    def _digits(self) -> int:
        """Bytes of the digits of a tile of columns."""
        nodes = [node for stage in self.program.stages() for node in products(stage.tiles)]
        return max((_digit_bytes(_weight(self.program, node)) for node in nodes), default=0)

    def ready(
        self, memory: Memory, thread: Expr, start: Expr, count: Expr
    ) -> AbstractContextManager[None]:
        return _configured(memory, thread, T.min(T.int32(ROWS), count - start // ROWS * ROWS))

    def multiply(self, panel: Panel, index: int, node: Node) -> None:
        """Unpack, then sweep the tiles of tokens that hold `panel.start` to `panel.count`."""
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
        """`halves` tiles of tokens, from `tile` on, x the panel's columns."""
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
    """Registers of 16 rows; those of sums and codes of fewer when there are fewer tokens."""
    buffer, at = memory.scratch(thread)
    setting = np.zeros(BLOCK, np.uint8)
    setting[0] = 1  # the palette
    setting[16:32:2] = ROW  # bytes a row, as uint16, of eight tiles
    setting[48 : 48 + REGISTERS] = ROWS
    v.store(buffer, at, table(setting), BLOCK)
    with I.serial(48, 48 + DIGITS) as register:
        # No rows would be no valid configuration.
        I.buffer_store(buffer, T.Cast("uint8", T.max(T.int32(1), rows)), [at + register])
    _amx("ldtilecfg", T.address_of(buffer[at]))
    yield
    _amx("tilerelease")


def _weight(program: Program, node: Node) -> Constant:
    weight = node.inputs[2]
    assert weight is not None
    return program.constants[weight]


def _digit_bytes(weight: Constant) -> int:
    """Bytes of the unpacked digits of 16 columns: all that is unpacked, and all that is swept."""
    layout, shape = LAYOUTS[weight.layout], weight.matrix_shape
    return round_up(layout.padded(shape)[1] // GROUP * ROW, TILE)


def _sums(half: int, column: int) -> Expr:
    return T.int8(half * Amx.columns + column)


def _tile(instruction: str, register: Expr, buffer: Buffer, at: Expr) -> None:
    """Move a register from or to where its rows follow each other."""
    _amx(instruction, register, T.address_of(buffer[at]), T.int64(ROW))


def _amx(instruction: str, *operands: Expr) -> None:
    I.evaluate(T.call_llvm_intrin("void", f"llvm.x86.{instruction}", *operands))
