"""Prefill on AMX: int8 matrix tiles, 16 tokens x 16 columns of sums an instruction.

A panel is two tiles of columns, 32. For each product of a stage the packed weights of a panel are
unpacked a few KiB at a time into the thread's scratch, once for all tokens; the matrix units then
sweep the tokens, 32 at a time, over what lies there. A row of a B tile is four columns of k for 16
columns of the panel: exactly one field of a packed block. Codes are signed, digits unsigned; the
epilogue subtracts the sum of the codes, as everywhere.

Intel's manual, volume 1, chapter 18, has the tiles; volume 2 the instructions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, replace

import numpy as np
from tvm.script import tirx as T
from tvm.tirx.script.builder import ir as I

from mmfree_compiler.backends.cpu import vector as v
from mmfree_compiler.backends.cpu.lookups import vbmi_lookup
from mmfree_compiler.backends.cpu.memory import Memory
from mmfree_compiler.backends.cpu.multiply import prefetch
from mmfree_compiler.backends.cpu.panel import Panel
from mmfree_compiler.backends.cpu.products import BLOCK
from mmfree_compiler.backends.cpu.tuning import Tuning
from mmfree_compiler.backends.cpu.unpack import FIELDS, table
from mmfree_compiler.backends.cpu.vector import LANES, Buffer, Expr
from mmfree_compiler.layouts import LAYOUTS, Layout
from mmfree_compiler.program import Node
from mmfree_compiler.runtime.cpu import MATRIX_TOKENS

ROWS = 16  # of a tile register
ROW = 64  # bytes of a tile register's row
GROUP = 4  # columns of k in a row of a B tile
TOKENS = MATRIX_TOKENS  # that a sweep takes at once, two tiles; the launcher leaves room for them
_A, _B = 4, 6  # tile registers: sums are 0 to 3, two rows of tiles; codes 4, 5; digits 6, 7


@dataclass(frozen=True)
class Amx:
    """The engine (panel.Engine): sums of 16 x 16 a register, written 32 tokens at a time."""

    tuning: Tuning
    columns = 2
    slack = TOKENS

    @property
    def reserved(self) -> int:
        """The configuration, and the digits of a stretch of k."""
        return self.digits(self.columns)

    def ready(self, memory: Memory, thread: Expr, count: Expr) -> AbstractContextManager[None]:
        return _configured(memory, thread, count)

    def multiply(self, panel: Panel, index: int, node: Node) -> None:
        """A stretch of k after the other, unpacked and swept."""
        weight = node.inputs[2]
        assert weight is not None
        constant = panel.memory.program.constants[weight]
        layout = LAYOUTS[constant.layout]
        rows, width = constant.matrix_shape
        blocks = layout.packed_shape((rows, width))[1]
        most = self.tuning.stretch
        depth = most * layout.block // BLOCK  # tiles of 64 columns of k in a stretch
        tiles = -(-width // BLOCK)
        with I.serial(0, -(-blocks // most)) as stretch:
            first = stretch * most
            count = T.min(T.int32(most), blocks - first)
            self._unpack(panel, weight, layout, blocks, first, count)
            sweep = _Sweep(self, panel, index, node, stretch, stretch * depth)
            sweep.tokens(T.min(T.int32(depth), tiles - stretch * depth))

    def digits(self, column: int) -> int:
        """The byte of the scratch at which the unpacked digits of a tile of columns begin."""
        most = max(self.tuning.stretch * layout.block // GROUP for layout in LAYOUTS.values())
        return BLOCK + column * most * ROW

    def _unpack(
        self, panel: Panel, weight: str, layout: Layout, blocks: int, first: Expr, count: Expr
    ) -> None:
        memory, groups = panel.memory, layout.block // GROUP
        weights = memory.buffers["weights"]
        for column in range(panel.columns):
            tile = T.Cast("int64", panel.place.column // LANES + column) * T.int64(blocks)
            at = memory.constant(weight, panel.place.layer) + tile * T.int64(BLOCK)
            at = I.bind(at + T.Cast("int64", first) * T.int64(BLOCK))
            digits, base = panel.scratch(self.digits(column))
            with I.serial(0, count) as block:
                byte = I.bind(at + T.Cast("int64", block) * T.int64(BLOCK))
                prefetch(weights, byte, self.tuning.prefetch)
                packed = I.bind(v.load(weights, byte, f"uint8x{BLOCK}"))
                for s, field in enumerate(FIELDS[layout.name](packed, BLOCK, vbmi_lookup)):
                    v.store(digits, base + (block * groups + s) * ROW, field.digits(), ROW)


@contextmanager
def _configured(memory: Memory, thread: Expr, count: Expr) -> Iterator[None]:
    """Tile registers of 16 rows, or of as many as there are tokens when they are fewer."""
    buffer, at = memory.scratch(thread)
    setting = np.zeros(BLOCK, np.uint8)
    setting[0] = 1  # the palette
    setting[16:32:2] = ROW  # bytes a row, as uint16, of eight tiles
    setting[48:56] = ROWS
    v.store(buffer, at, table(setting), BLOCK)
    rows = T.max(T.int32(1), T.min(count, T.int32(ROWS)))  # none is no valid configuration
    with I.serial(48, 48 + _B) as tile:
        I.buffer_store(buffer, T.Cast("uint8", rows), [at + tile])
    _amx("ldtilecfg", T.address_of(buffer[at]))
    yield
    _amx("tilerelease")


@dataclass(frozen=True)
class _Sweep:
    """All tokens over one stretch of k of one product; `tile` is the stretch's first tile of k."""

    engine: Amx
    panel: Panel
    index: int
    node: Node
    stretch: Expr
    tile: Expr

    def tokens(self, depth: Expr) -> None:
        total = self.panel.count - self.panel.start
        pairs = I.bind((total + ROWS - 1) // TOKENS)
        with I.serial(0, pairs) as pair:
            self._block(pair * TOKENS, 2, depth)
        with I.If(total > pairs * TOKENS), I.Then():
            self._block(pairs * TOKENS, 1, depth)

    def _block(self, token: Expr, halves: int, depth: Expr) -> None:
        """16 or 32 tokens x the panel's columns: sums stay in tile registers over `depth`."""
        cells = [(h, c) for h in range(halves) for c in range(self.panel.columns)]
        with I.If(self.stretch == 0):
            with I.Then():
                for h, c in cells:
                    _amx("tilezero", T.int8(2 * h + c))
            with I.Else():
                self._move("tileloadd64", cells, token)
        with I.serial(0, depth) as k:
            for h in range(halves):
                self._load_codes(h, token + h * ROWS, k)
            for c in range(self.panel.columns):
                self._load_digits(c, k)
            for h, c in cells:
                _amx("tdpbsud", T.int8(2 * h + c), T.int8(_A + h), T.int8(_B + c))
        self._move("tilestored64", cells, token)

    def _move(self, instruction: str, cells: list[tuple[int, int]], token: Expr) -> None:
        for h, c in cells:
            sums = self.panel.sums(self.index, c, token + h * ROWS)
            self._tile(instruction, 2 * h + c, *sums, ROW)

    def _load_codes(self, half: int, token: Expr, k: Expr) -> None:
        codes, memory = self.node.inputs[0], self.panel.memory
        assert codes is not None
        place = replace(self.panel.place, token=self.panel.start + token)
        buffer, at = memory.row(codes, place)
        column = (self.tile + k) * BLOCK
        self._tile("tileloadd64", _A + half, buffer, at + column, memory.stride(codes))

    def _load_digits(self, column: int, k: Expr) -> None:
        offset = self.engine.digits(column) + k * (ROWS * ROW)
        self._tile("tileloadd64", _B + column, *self.panel.scratch(offset), ROW)

    @staticmethod
    def _tile(instruction: str, tile: int, buffer: Buffer, at: Expr, stride: int) -> None:
        _amx(instruction, T.int8(tile), T.address_of(buffer[at]), T.int64(stride))


def _amx(instruction: str, *operands: Expr) -> None:
    I.evaluate(T.call_llvm_intrin("void", f"llvm.x86.{instruction}", *operands))
