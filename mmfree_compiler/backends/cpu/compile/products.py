"""Multiplying blocks of packed weights by int8 codes: exact integers on every instruction set.

All variants can read all layouts, so that they can share one copy of the weights. A block of 64
bytes has 16 rows; `unpack` splits it into fields, groups of four columns, whose digits are `w + 1`.
The dot product of the unsigned w + 1 with the signed codes is `sum(q w) + sum(q)`; the epilogue
subtracts the sum of the codes.

This file has the parts that all ways to multiply share; the ways are in dots.py and pairs.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Protocol

from tvm.script import tirx as T

from mmfree_compiler.backends.cpu.compile.unpack import Field, Lookup
from mmfree_compiler.backends.cpu.compile.vector import INTS, LANES, Buffer, Expr, load, splat_int

BLOCK = 64  # bytes of a block of packed weights

Part = Callable[[int, int], Expr]  # (first byte, bytes) -> that part of the block, uint8
Fields = Callable[[int, int, Lookup], Sequence[Field]]  # (first byte, bytes) -> its fields
Codes = Callable[[int, int], Expr]  # (token, field) -> the int32 that holds its four codes


@dataclass(frozen=True)
class Block:
    """A block: its packed bytes, its fields, and the codes that go with it."""

    part: Part
    fields: Fields
    codes: Codes


@dataclass(frozen=True)
class Blocks:
    """The blocks of a tile: `at(k)` emits access to block k."""

    count: Expr
    at: Callable[[Expr], Block]


class Product(Protocol):
    """One way to multiply.

    A token has one or more accumulators of 16 int32 lanes. `shifts` has an entry for each: by how
    many bits its sums are shifted left. Each accumulator has a buffer, with token t at lane 16 t.
    """

    def shifts(self, layout: str, tokens: int, /) -> tuple[int, ...]:
        """The shifts of a token's accumulators, when `tokens` are multiplied together."""

    def add(self, layout: str, blocks: Blocks, sums: Sequence[Buffer], tokens: int, /) -> None:
        """Add the products of all blocks."""


def total(product: Product, layout: str, sums: Sequence[Buffer], token: Expr, tokens: int) -> Expr:
    """A token's 16 sums. Exact: shifted sums are multiples of 2**shift, below 2^31 for K < 2^17."""
    return reduce(
        add,
        (
            T.shift_right(load(cells, token * LANES, INTS), splat_int(shift))
            for cells, shift in zip(sums, product.shifts(layout, tokens), strict=True)
        ),
    )


def fields_in_order(
    fields: Fields, width: int, lookup: Lookup, tokens: int
) -> Iterator[tuple[int, list[tuple[int, Field]]]]:
    """(s, [(first byte, field s) of parts of the block, `width` bytes each]) in a good order.

    For several tokens: field by field, of all parts, so that a token's codes are loaded once for
    all parts and registers are left for sums. For one: part by part; its codes stay in registers.
    """
    firsts = range(0, BLOCK, width)
    for together in [firsts] if tokens > 1 else [[first] for first in firsts]:
        parts = [fields(first, width, lookup) for first in together]
        for s, found in enumerate(zip(*parts, strict=True)):
            yield s, list(zip(together, found, strict=True))
