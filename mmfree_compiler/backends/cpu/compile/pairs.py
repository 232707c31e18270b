"""Products summed in pairs as int16, and widened to int32 before they can overflow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from tvm.script import tirx as T
from tvm.tirx.script.builder import ir as I

from mmfree_compiler.backends.cpu.compile.lookups import avx2_lookup
from mmfree_compiler.backends.cpu.compile.products import (
    BLOCK,
    Block,
    Blocks,
    fields_in_order,
)
from mmfree_compiler.backends.cpu.compile.unpack import DIGITS, SHIFTS
from mmfree_compiler.backends.cpu.compile.vector import LANES, Buffer, Expr, load, register, store

# Pairs that int16 can sum. A pair is two codes times two digits: at most 2 * 2 * 127 and at least
# 2 * 2 * -128, so 64 pairs sum to at most 32512 and at least -32768. Times 2**n: PAIRS >> n.
PAIRS = 64

# Adds one block's pairs to accumulators like a product's, but of 32 int16 each.
AddBlock = Callable[[Block, Sequence[Buffer]], None]
Widen = Callable[[Expr], Expr]  # int16x16 -> int32x8: sums of neighbours


def _widened(
    blocks: Blocks, span: int, block: AddBlock, widen: Widen, sums: Sequence[Buffer], tokens: int
) -> None:
    """Add all blocks' products to `sums`: `block` sums pairs, which widen every `span` blocks.

    int32 lane i is the sum of int16 lanes 2i and 2i + 1.
    """
    size, half = LANES * tokens, LANES // 2
    pairs = [register("int16", 2 * size) for _ in sums]
    with I.serial(0, (blocks.count + span - 1) // span) as turn:
        for cells in pairs:
            for lane in range(0, size, LANES):
                store(cells, 2 * lane, _int16(0), 2 * LANES)
        first = I.bind(turn * span)
        with I.serial(first, T.min(first + span, blocks.count)) as k:
            block(blocks.at(k), pairs)
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

    Several tokens share the shifts and masks that unpack digits. One token saves two of the shifts:
    its digits are multiplied by 1 or by 4, with an accumulator for each of these factors.
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

    def _block(self, layout: str, tokens: int, block: Block, pairs: Sequence[Buffer]) -> None:
        shifts = self.shifts(layout, tokens)
        for s, fields in fields_in_order(block.fields, BLOCK // 2, avx2_lookup, tokens):
            left = self._left(fields[0][1].shift, tokens)
            digits = [(first // 2, field.digits(left)) for first, field in fields]
            cells = pairs[shifts.index(left)]
            for token in range(tokens):
                for lane, weights in digits:
                    at = token * 2 * LANES + lane
                    _grow(cells, at, _maddubs(weights, block.codes(token, s)), "int16x16")


def _maddubs(weights: Expr, codes: Expr) -> Expr:
    four = T.reinterpret("int8x32", T.broadcast(codes, LANES // 2))
    return T.call_llvm_pure_intrin("int16x16", "llvm.x86.avx2.pmadd.ub.sw", weights, four)


def _madd(pairs: Expr) -> Expr:
    ones = T.broadcast(T.int16(1), LANES)
    return T.call_llvm_pure_intrin("int32x8", "llvm.x86.avx2.pmadd.wd", pairs, ones)


class Arithmetic:
    """Portable: the digits of even and odd bytes, as int16, times their codes."""

    def shifts(self, _layout: str, _tokens: int, /) -> tuple[int, ...]:
        return (0,)

    def add(self, layout: str, blocks: Blocks, sums: Sequence[Buffer], tokens: int) -> None:
        span = PAIRS // len(SHIFTS[layout])
        block = partial(self._block, layout, tokens)
        _widened(blocks, span, block, _add_halves, sums, tokens)

    def _block(self, layout: str, tokens: int, block: Block, pairs: Sequence[Buffer]) -> None:
        bytes_ = T.reinterpret("uint16x32", block.part(0, BLOCK))
        low = T.bitwise_and(bytes_, T.broadcast(T.uint16(255), 32))
        high = T.shift_right(bytes_, T.broadcast(T.uint16(8), 32))
        even, odd = (DIGITS[layout](I.bind(T.reinterpret("int16x32", h))) for h in (low, high))
        for token in range(tokens):
            products = _int16(0)
            for s in range(len(even)):
                pair = I.bind(T.reinterpret("int16x32", T.broadcast(block.codes(token, s), LANES)))
                first = T.shift_right(T.shift_left(pair, _int16(8)), _int16(8))
                second = T.shift_right(pair, _int16(8))
                products = products + even[s] * first + odd[s] * second
            _grow(pairs[0], token * 2 * LANES, products, "int16x32")


def _add_halves(pairs: Expr) -> Expr:
    both, bits = I.bind(T.reinterpret("int32x8", pairs)), T.broadcast(T.int32(16), LANES // 2)
    return T.shift_right(T.shift_left(both, bits), bits) + T.shift_right(both, bits)
