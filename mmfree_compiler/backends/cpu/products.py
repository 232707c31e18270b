"""How a block of packed weights meets int8 codes: exact integers on every instruction set.

All variants read the same layouts, so one copy of the weights serves them. A block of 64 bytes
holds 16 rows; `unpack` makes fields of it, groups of four columns, whose digits are `w + 1`. The
dot product of the unsigned w + 1 with the signed codes gives `sum(q w) + sum(q)`; the epilogue
subtracts the sum of the codes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import reduce
from operator import add
from typing import Protocol

from tvm.script import tirx as T
from tvm.tirx.script.builder import ir as I

from mmfree_compiler.backends.cpu.lookups import avx2_lookup
from mmfree_compiler.backends.cpu.unpack import DIGITS, FIELDS, SHIFTS, Field, Lookup
from mmfree_compiler.backends.cpu.vector import INTS, LANES, Buffer, Expr, load, splat_int, store

BLOCK = 64  # bytes of a block of packed weights

Part = Callable[[int, int], Expr]  # (first byte, bytes) -> that part of the block, uint8
Codes = Callable[[int, int], Expr]  # (token, field) -> the int32 that holds its four codes


class Product(Protocol):
    """One way to multiply.

    A block of tokens has a grid of accumulators, 16 int32 lanes each: `shifts` says how many a
    token has, and by how many bits the sums in each are shifted left. Accumulator a of token t lies
    at lane 16 (a tokens + t).
    """

    def shifts(self, layout: str, tokens: int, /) -> tuple[int, ...]:
        """Of a token's accumulators, when `tokens` go together."""

    def add(self, layout: str, block: Part, codes: Codes, sums: Buffer, tokens: int) -> None:
        """Add one block's products."""


def lanes(product: Product, layout: str, tokens: int) -> int:
    """int32 lanes of all accumulators."""
    return LANES * tokens * len(product.shifts(layout, tokens))


def total(product: Product, layout: str, sums: Buffer, token: Expr, tokens: int) -> Expr:
    """A token's 16 sums. Exact: shifted sums are multiples of 2**shift, below 2^31 for K < 2^17."""
    return reduce(
        add,
        (
            T.shift_right(load(sums, (a * tokens + token) * LANES, INTS), splat_int(shift))
            for a, shift in enumerate(product.shifts(layout, tokens))
        ),
    )


# --- dot products of four bytes into int32: one instruction a field; none can saturate -----------

# Accumulators that an instruction of latency 5, two at a time, wants: with fewer it waits for them.
INDEPENDENT = 12


@dataclass(frozen=True)
class Dot:
    """`intrinsic(sums, digits, codes)` on vectors of `width` bytes.

    `unsigned`: it takes digits as unsigned bytes, so that one token's fields are multiplied where
    they lie in their bytes, each into an accumulator of its own.
    """

    intrinsic: str
    width: int
    unsigned: bool
    lookup: Lookup

    def shifts(self, layout: str, tokens: int, /) -> tuple[int, ...]:
        if self._in_place(tokens):
            return SHIFTS[layout]
        return (0,) * max(1, INDEPENDENT * self.width // (BLOCK * tokens))

    def add(self, layout: str, block: Part, codes: Codes, sums: Buffer, tokens: int) -> None:
        count = len(self.shifts(layout, tokens))
        for first in range(0, BLOCK, self.width):
            fields = FIELDS[layout](block(first, self.width), self.width, self.lookup)
            for s, field in enumerate(fields):
                digits = field.in_place() if self._in_place(tokens) else field.digits()
                for token in range(tokens):
                    at = (s % count * tokens + token) * LANES + first // 4
                    self._multiply(sums, at, digits, codes(token, s))

    def _in_place(self, tokens: int) -> bool:
        return self.unsigned and tokens == 1

    def _multiply(self, sums: Buffer, at: int, digits: Expr, codes: Expr) -> None:
        kind, count = f"int8x{self.width}", self.width // 4
        weights = digits if self.unsigned else T.reinterpret(kind, digits)
        four = T.reinterpret(kind, T.broadcast(codes, count))
        before = load(sums, at, f"int32x{count}")
        after = T.call_llvm_pure_intrin(f"int32x{count}", self.intrinsic, before, weights, four)
        store(sums, at, after, count)


# --- AVX2: vpmaddubsw makes int16 pairs (at most 5 * 2 * 2 * 128, no saturation), vpmaddwd int32 --


class Maddubs:
    """One accumulator a token: its sums grow once a block."""

    def shifts(self, _layout: str, _tokens: int, /) -> tuple[int, ...]:
        return (0,)

    def add(self, layout: str, block: Part, codes: Codes, sums: Buffer, tokens: int) -> None:
        half = BLOCK // 2
        ones = T.broadcast(T.int16(1), 16)
        for first in range(0, BLOCK, half):
            fields: Sequence[Field] = FIELDS[layout](block(first, half), half, avx2_lookup)
            digits = [field.digits() for field in fields]
            for token in range(tokens):
                pairs = [_maddubs(weights, codes(token, s)) for s, weights in enumerate(digits)]
                quads = T.call_llvm_pure_intrin(
                    "int32x8", "llvm.x86.avx2.pmadd.wd", reduce(add, pairs), ones
                )
                _grow(sums, token * LANES + first // 4, quads, half // 4)


def _maddubs(weights: Expr, codes: Expr) -> Expr:
    broadcast = T.reinterpret("int8x32", T.broadcast(codes, LANES // 2))
    return T.call_llvm_pure_intrin("int16x16", "llvm.x86.avx2.pmadd.ub.sw", weights, broadcast)


def _grow(sums: Buffer, offset: int, vector: Expr, count: int = LANES) -> None:
    store(sums, offset, load(sums, offset, f"int32x{count}") + vector, count)


# --- portable: int16 products by plain vector arithmetic, widened once a block -------------------


class Arithmetic:
    """Bytes in pairs as int16: the even and the odd byte's digits times the even and odd code."""

    def shifts(self, _layout: str, _tokens: int, /) -> tuple[int, ...]:
        return (0,)

    def add(self, layout: str, block: Part, codes: Codes, sums: Buffer, tokens: int) -> None:
        pairs = T.reinterpret("uint16x32", block(0, BLOCK))
        low = T.bitwise_and(pairs, T.broadcast(T.uint16(255), 32))
        high = T.shift_right(pairs, T.broadcast(T.uint16(8), 32))
        even, odd = (DIGITS[layout](I.bind(T.reinterpret("int16x32", h))) for h in (low, high))
        for token in range(tokens):
            products = T.broadcast(T.int16(0), 32)
            for s in range(len(even)):
                pair = I.bind(T.reinterpret("int16x32", T.broadcast(codes(token, s), LANES)))
                first = T.shift_right(T.shift_left(pair, _int16(8)), _int16(8))
                second = T.shift_right(pair, _int16(8))
                products = products + even[s] * first + odd[s] * second
            both = I.bind(T.reinterpret(INTS, products))
            left = T.shift_right(T.shift_left(both, splat_int(16)), splat_int(16))
            _grow(sums, token * LANES, left + T.shift_right(both, splat_int(16)))


def _int16(value: int) -> Expr:
    return T.broadcast(T.int16(value), 32)
