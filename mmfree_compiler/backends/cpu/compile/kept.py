"""Unpacked digits of a tile in memory, for more tokens than registers can sum at once.

The first tokens unpack the digits, as ever, and store them; the following ones load them. Loads and
stores take none of the vector units that unpack and multiply, so this pays where registers hold the
sums of few tokens, and unpacking would be a large part of the work. A tile's digits are four or
five times as large as its packed weights. They are read in order, from L1 or L2.
"""

from __future__ import annotations

from dataclasses import dataclass

from tvm.tirx.script.builder import ir as I

from mmfree_compiler.backends.cpu.compile.panel import products
from mmfree_compiler.backends.cpu.compile.products import BLOCK, Fields
from mmfree_compiler.backends.cpu.compile.unpack import Field, Lookup
from mmfree_compiler.backends.cpu.compile.vector import LANES, Buffer, Expr, load, store
from mmfree_compiler.backends.cpu.layouts import LAYOUTS
from mmfree_compiler.program import Node, Program


@dataclass(frozen=True)
class Kept:
    """A tile's digits in `buffer`: block by block, and field by field, 64 bytes each."""

    buffer: Buffer
    fields: int

    def saved(self, fields: Fields, k: Expr) -> Fields:
        """The fields of block k, which store the digits that they unpack."""

        def saving(first: int, width: int, lookup: Lookup) -> list[Field]:
            return [
                _Saved(field.packed, field.shift, width, self.buffer, self._at(k, s, first))
                for s, field in enumerate(fields(first, width, lookup))
            ]

        return saving

    def loaded(self, _fields: Fields, k: Expr) -> Fields:
        """The fields of block k, from the digits that `saved` stored."""

        def loading(first: int, width: int, _lookup: Lookup) -> list[Field]:
            places = (self._at(k, s, first) for s in range(self.fields))
            return [_Loaded(load(self.buffer, at, f"uint8x{width}"), 0, width) for at in places]

        return loading

    def _at(self, k: Expr, s: int, first: int) -> Expr:
        return (k * self.fields + s) * BLOCK + first


@dataclass(frozen=True)
class _Saved(Field):
    buffer: Buffer
    at: Expr

    def digits(self, left: int = 0) -> Expr:
        found = super().digits(left)
        store(self.buffer, self.at, found, self.width)
        return found


@dataclass(frozen=True)
class _Loaded(Field):
    def digits(self, left: int = 0) -> Expr:
        assert left == 0
        return I.bind(self.packed)


def digit_bytes(program: Program) -> int:
    """Bytes of the digits of 16 columns of the widest product."""
    nodes = [node for stage in program.stages() for node in products(stage.tiles)]
    return max((_columns(program, node) * LANES for node in nodes), default=0)


def _columns(program: Program, node: Node) -> int:
    """K of a product, rounded up to whole blocks."""
    weight = node.inputs[2]
    assert weight is not None
    constant = program.constants[weight]
    return LAYOUTS[constant.layout.name].padded(constant.matrix_shape)[1]
