"""How a block of packed weights meets int8 codes: exact integers on every instruction set.

All variants read the same layouts, so one copy of the weights serves them. A block of 64 bytes
holds 16 rows; `unpack` makes fields of it, groups of four columns, whose digits are `w + 1`. The
dot product of the unsigned w + 1 with the signed codes gives `sum(q w) + sum(q)`; the epilogue
subtracts the sum of the codes.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial, reduce
from operator import add
from typing import Protocol

from tvm.script import tirx as T
from tvm.tirx.script.builder import ir as I

from mmfree_compiler.backends.cpu.lookups import avx2_lookup
from mmfree_compiler.backends.cpu.unpack import DIGITS, FIELDS, SHIFTS, Field, Lookup
from mmfree_compiler.backends.cpu.vector import (
    INTS,
    LANES,
    Buffer,
    Expr,
    load,
    register,
    splat_int,
    store,
)

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


def _fields(
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


# --- dot products of four bytes into int32: one instruction a field; none can saturate -----------


@dataclass(frozen=True)
class Dot:
    """`intrinsic(sums, digits, codes)` on vectors of `width` bytes.

    `unsigned`: it takes digits as unsigned bytes, so that one token's fields are multiplied where
    they lie in their bytes, each into an accumulator of its own. `registers` are what accumulators
    of several tokens may fill: the instruction has a latency of 5 and starts twice a cycle, so that
    it waits for sums where there are fewer than ten.
    """

    intrinsic: str
    width: int
    unsigned: bool
    lookup: Lookup
    registers: int = 16

    def shifts(self, layout: str, tokens: int, /) -> tuple[int, ...]:
        if self._in_place(tokens):
            return SHIFTS[layout]
        most = self.registers * self.width // (BLOCK * tokens)
        return (0,) * max(1, min(most, len(SHIFTS[layout])))

    def add(self, layout: str, blocks: Blocks, sums: Sequence[Buffer], tokens: int) -> None:
        with I.serial(0, blocks.count) as k:
            self._block(layout, *blocks.at(k), sums, tokens)

    def _block(
        self, layout: str, block: Part, codes: Codes, sums: Sequence[Buffer], tokens: int
    ) -> None:
        for s, fields in _fields(layout, block, self.width, self.lookup, tokens):
            digits = [
                (first // 4, field.digits(field.shift if self._in_place(tokens) else 0))
                for first, field in fields
            ]
            for token in range(tokens):
                for lane, weights in digits:
                    at = token * LANES + lane
                    self._multiply(sums[s % len(sums)], at, weights, codes(token, s))

    def _in_place(self, tokens: int) -> bool:
        return self.unsigned and tokens == 1

    def _multiply(self, sums: Buffer, at: int, digits: Expr, codes: Expr) -> None:
        kind, count = f"int8x{self.width}", self.width // 4
        weights = digits if self.unsigned else T.reinterpret(kind, digits)
        four = T.reinterpret(kind, T.broadcast(codes, count))
        before = load(sums, at, f"int32x{count}")
        after = T.call_llvm_pure_intrin(f"int32x{count}", self.intrinsic, before, weights, four)
        store(sums, at, after, count)


# --- sums of int16, widened when they might overflow ----------------------------------------------

# A pair is two codes times two digits: at most 2 * 2 * 127 and at least 2 * 2 * -128. So many pairs
# add up to 32512 at most and -32768 at least, which int16 holds; times 2**n, so many >> n.
PAIRS = 64

# Adds one block's pairs to accumulators like a product's, but of 32 int16 each.
AddBlock = Callable[[Part, Codes, Sequence[Buffer]], None]
Widen = Callable[[Expr], Expr]  # int16x16 -> int32x8: sums of neighbours


def _widened(
    blocks: Blocks, span: int, block: AddBlock, widen: Widen, sums: Sequence[Buffer], tokens: int
) -> None:
    """Add all blocks' products to `sums`: pairs by `block`, for `span` blocks at a time.

    int16 lanes 2i and 2i + 1 hold what int32 lane i is the sum of.
    """
    size, half = LANES * tokens, LANES // 2
    pairs = [register("int16", 2 * size) for _ in sums]
    with I.serial(0, (blocks.count + span - 1) // span) as turn:
        for cells in pairs:
            for lane in range(0, size, LANES):
                store(cells, 2 * lane, _int16(0), 2 * LANES)
        first = I.bind(turn * span)
        with I.serial(first, T.min(first + span, blocks.count)) as k:
            block(*blocks.at(k), pairs)
        for cells, narrow in zip(sums, pairs, strict=True):
            for lane in range(0, size, half):
                found = I.bind(load(narrow, 2 * lane, f"int16x{LANES}"))
                _grow(cells, lane, widen(found), f"int32x{half}")


def _grow(cells: Buffer, lane: int, vector: Expr, kind: str) -> None:
    store(cells, lane, load(cells, lane, kind) + vector, int(kind.partition("x")[2]))


def _int16(value: int) -> Expr:
    return T.broadcast(T.int16(value), 2 * LANES)


class Maddubs:
    """AVX2: vpmaddubsw multiplies and adds pairs.

    Shifts and masks to unpack are shared by several tokens. One token's digits stay where two
    shifts less leave them, times 1 or 4, each with an accumulator of its own.
    """

    def shifts(self, layout: str, tokens: int, /) -> tuple[int, ...]:
        return tuple(sorted(self._fields(layout, tokens)))

    def add(self, layout: str, blocks: Blocks, sums: Sequence[Buffer], tokens: int) -> None:
        span = min((PAIRS >> left) // n for left, n in self._fields(layout, tokens).items())
        block = partial(self._block, layout, tokens)
        _widened(blocks, span, block, _madd, sums, tokens)

    def _fields(self, layout: str, tokens: int) -> Counter[int]:
        """How many fields of a block are multiplied at each shift to the left."""
        return Counter(self._left(shift, tokens) for shift in SHIFTS[layout])

    @staticmethod
    def _left(shift: int, tokens: int) -> int:
        return shift % 4 if tokens == 1 else 0

    def _block(
        self, layout: str, tokens: int, block: Part, codes: Codes, pairs: Sequence[Buffer]
    ) -> None:
        shifts = self.shifts(layout, tokens)
        for s, fields in _fields(layout, block, BLOCK // 2, avx2_lookup, tokens):
            left = self._left(fields[0][1].shift, tokens)
            digits = [(first // 2, field.digits(left)) for first, field in fields]
            cells = pairs[shifts.index(left)]
            for token in range(tokens):
                for lane, weights in digits:
                    at = token * 2 * LANES + lane
                    _grow(cells, at, _maddubs(weights, codes(token, s)), "int16x16")


def _maddubs(weights: Expr, codes: Expr) -> Expr:
    four = T.reinterpret("int8x32", T.broadcast(codes, LANES // 2))
    return T.call_llvm_pure_intrin("int16x16", "llvm.x86.avx2.pmadd.ub.sw", weights, four)


def _madd(pairs: Expr) -> Expr:
    ones = T.broadcast(T.int16(1), LANES)
    return T.call_llvm_pure_intrin("int32x8", "llvm.x86.avx2.pmadd.wd", pairs, ones)


class Arithmetic:
    """Portable: bytes in pairs as int16, the even and the odd byte's digits times their codes."""

    def shifts(self, _layout: str, _tokens: int, /) -> tuple[int, ...]:
        return (0,)

    def add(self, layout: str, blocks: Blocks, sums: Sequence[Buffer], tokens: int) -> None:
        span = PAIRS // len(SHIFTS[layout])
        block = partial(self._block, layout, tokens)
        _widened(blocks, span, block, _add_halves, sums, tokens)

    def _block(
        self, layout: str, tokens: int, block: Part, codes: Codes, pairs: Sequence[Buffer]
    ) -> None:
        bytes_ = T.reinterpret("uint16x32", block(0, BLOCK))
        low = T.bitwise_and(bytes_, T.broadcast(T.uint16(255), 32))
        high = T.shift_right(bytes_, T.broadcast(T.uint16(8), 32))
        even, odd = (DIGITS[layout](I.bind(T.reinterpret("int16x32", h))) for h in (low, high))
        for token in range(tokens):
            products = _int16(0)
            for s in range(len(even)):
                pair = I.bind(T.reinterpret("int16x32", T.broadcast(codes(token, s), LANES)))
                first = T.shift_right(T.shift_left(pair, _int16(8)), _int16(8))
                second = T.shift_right(pair, _int16(8))
                products = products + even[s] * first + odd[s] * second
            _grow(pairs[0], token * 2 * LANES, products, "int16x32")


def _add_halves(pairs: Expr) -> Expr:
    both, bits = I.bind(T.reinterpret("int32x8", pairs)), T.broadcast(T.int32(16), LANES // 2)
    return T.shift_right(T.shift_left(both, bits), bits) + T.shift_right(both, bits)
