"""How a block of packed weights meets int8 codes: exact integers on every instruction set.

All variants read the same layouts, so one copy of the weights serves them. A block of 64 bytes
holds 16 rows; `unpack` makes fields of it, groups of four columns, whose digits are `w + 1`. The
dot product of the unsigned w + 1 with the signed codes gives `sum(q w) + sum(q)`; the epilogue
subtracts the sum of the codes.

What the ways to multiply have in common is here; the ways are in dots.py and pairs.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Protocol

from tvm.script import tirx as T

from mmfree_compiler.backends.cpu.unpack import FIELDS, Field, Lookup
from mmfree_compiler.backends.cpu.vector import INTS, LANES, Buffer, Expr, load, splat_int

BLOCK = 64  # bytes of a block of packed weights

Part = Callable[[int, int], Expr]  # (first byte, bytes) -> that part of the block, uint8
Codes = Callable[[int, int], Expr]  # (token, field) -> the int32 that holds its four codes


@dataclass(frozen=True)
class Blocks:
    """The blocks of a tile, and the codes that go with each: `at(k)` emits what block k needs."""

    count: Expr
    at: Callable[[Expr], tuple[Part, Codes]]


class Product(Protocol):
    """One way to multiply.

    A token has accumulators of 16 int32 lanes: `shifts` says how many, and by how many bits the
    sums in each are shifted left. For each there is a buffer; token t is at lane 16 t of it.
    """

    def shifts(self, layout: str, tokens: int, /) -> tuple[int, ...]:
        """Of a token's accumulators, when `tokens` go together."""

    def add(self, layout: str, blocks: Blocks, sums: Sequence[Buffer], tokens: int) -> None:
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
    layout: str, block: Part, width: int, lookup: Lookup, tokens: int
) -> Iterator[tuple[int, list[tuple[int, Field]]]]:
    """(s, (first byte, field s) of parts of the block, `width` bytes each) in a good order.

    Several tokens: field by field, of all parts, so that a token's codes serve all parts at once
    and leave the registers to sums. One: part by part, as its codes stay in registers.
    """
    firsts = range(0, BLOCK, width)
    for together in [firsts] if tokens > 1 else [[first] for first in firsts]:
        parts = [FIELDS[layout](block(first, width), width, lookup) for first in together]
        for s, fields in enumerate(zip(*parts, strict=True)):
            yield s, list(zip(together, fields, strict=True))
