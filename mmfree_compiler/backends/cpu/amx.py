"""Prefill on AMX: int8 matrix tiles, 16 tokens x 16 columns of sums an instruction.

A panel is two or four tiles of columns. For each product of a stage the packed weights of a panel
are unpacked a few KiB at a time into the thread's scratch, once for all tokens; the matrix units
then sweep the tokens, 32 or 16 at a time, over what lies there: four tiles of sums. A row of a B
tile is four columns of k for 16 columns of the panel: exactly one field of a packed block. Codes
are signed, digits unsigned; the epilogue subtracts the sum of the codes, as everywhere.

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
# Tile registers: the first four are sums, then come codes, one for each 16 tokens, then digits.
SUMS, REGISTERS = 4, 8


@dataclass(frozen=True)
class Amx:
    """The engine (panel.Engine): sums of 16 x 16 a register, `halves` x `columns` of them."""

    tuning: Tuning
    slack = MATRIX_TOKENS  # the launcher leaves room for so many rows of codes, too

    @property
    def columns(self) -> int:
        return self.tuning.columns

    @property
    def halves(self) -> int:
        """Tiles of tokens that are swept at once."""
        return SUMS // self.columns

    @property
    def reserved(self) -> int:
        """The configuration, and the digits of a stretch of k."""
        return self.digits(self.columns)

    def ready(self, memory: Memory, thread: Expr, count: Expr) -> AbstractContextManager[None]:
        return _configured(memory, thread, count, SUMS + self.halves)

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
def _configured(memory: Memory, thread: Expr, count: Expr, digits: int) -> Iterator[None]:
    """Registers of 16 rows; those before `digits` of as many as there are tokens when fewer."""
    buffer, at = memory.scratch(thread)
    setting = np.zeros(BLOCK, np.uint8)
    setting[0] = 1  # the palette
    setting[16:32:2] = ROW  # bytes a row, as uint16, of eight tiles
    setting[48:56] = ROWS
    v.store(buffer, at, table(setting), BLOCK)
    rows = T.max(T.int32(1), T.min(count, T.int32(ROWS)))  # none is no valid configuration
    with I.serial(48, 48 + digits) as tile:
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
        halves = self.engine.halves
        step = halves * ROWS
        blocks = I.bind((total + ROWS - 1) // step)
        with I.serial(0, blocks) as block:
            self._block(block * step, halves, depth)
        if halves > 1:
            with I.If(total > blocks * step), I.Then():
                self._block(blocks * step, 1, depth)

    def _block(self, token: Expr, halves: int, depth: Expr) -> None:
        """16 tokens a half x the panel's columns: sums stay in tile registers over `depth`."""
        cells = [(h, c) for h in range(halves) for c in range(self.panel.columns)]
        with I.If(self.stretch == 0):
            with I.Then():
                for h, c in cells:
                    _amx("tilezero", self._sums(h, c))
            with I.Else():
                self._move("tileloadd64", cells, token)
        with I.serial(0, depth) as k:
            for h in range(halves):
                self._load_codes(h, token + h * ROWS, k)
            for c in range(self.panel.columns):
                digits = self._load_digits(c, k)
                for h in range(halves):
                    _amx("tdpbsud", self._sums(h, c), T.int8(SUMS + h), digits)
        self._move("tilestored64", cells, token)

    def _move(self, instruction: str, cells: list[tuple[int, int]], token: Expr) -> None:
        for h, c in cells:
            sums = self.panel.sums(self.index, c, token + h * ROWS)
            self._tile(instruction, self._sums(h, c), *sums, ROW)

    def _sums(self, half: int, column: int) -> Expr:
        return T.int8(half * self.engine.columns + column)

    def _load_codes(self, half: int, token: Expr, k: Expr) -> None:
        codes, memory = self.node.inputs[0], self.panel.memory
        assert codes is not None
        place = replace(self.panel.place, token=self.panel.start + token)
        buffer, at = memory.row(codes, place)
        column = (self.tile + k) * BLOCK
        self._tile("tileloadd64", T.int8(SUMS + half), buffer, at + column, memory.stride(codes))

    def _load_digits(self, column: int, k: Expr) -> Expr:
        """The register that they are in: those that are left take turns."""
        first = SUMS + self.engine.halves
        register = T.int8(first + column % (REGISTERS - first))
        offset = self.engine.digits(column) + k * (ROWS * ROW)
        self._tile("tileloadd64", register, *self.panel.scratch(offset), ROW)
        return register

    @staticmethod
    def _tile(instruction: str, tile: Expr, buffer: Buffer, at: Expr, stride: int) -> None:
        _amx(instruction, tile, T.address_of(buffer[at]), T.int64(stride))


def _amx(instruction: str, *operands: Expr) -> None:
    I.evaluate(T.call_llvm_intrin("void", f"llvm.x86.{instruction}", *operands))
