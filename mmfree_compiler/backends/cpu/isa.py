"""Instruction sets: how a block of packed weights meets int8 codes. Exact integers in each.

All variants read the same layouts, so one copy of the weights serves them. A block of 64 bytes
holds 16 rows; `unpack` makes fields of it, groups of four columns, whose digits are `w + 1`. The
dot product of the unsigned w + 1 with the signed codes gives `sum(q w) + sum(q)`; the epilogue
subtracts the sum of the codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import reduce
from operator import add

import numpy as np
from tvm.script import tirx as T
from tvm.tirx.script.builder import ir as I

from mmfree_compiler.backends.cpu.unpack import DIGITS, FIELDS, Field, Lookup, table
from mmfree_compiler.backends.cpu.vector import INTS, LANES, Buffer, Expr, load, splat_int, store
from mmfree_compiler.layouts import Bytes

BLOCK = 64  # bytes of a block of packed weights
GROUPS = 4  # places that a field's two bits have in a byte

Part = Callable[[int, int], Expr]  # (first byte, bytes) -> that part of the block, uint8
Codes = Callable[[int, int], Expr]  # (token, field) -> the int32 that holds its four codes
# (layout, block, codes, sums, tokens): add one block's products for `tokens` tokens
Accumulate = Callable[[str, Part, Codes, Buffer, int], None]


@dataclass(frozen=True)
class Isa:
    """One variant: its LLVM target and how it multiplies.

    `token_blocks`: how many tokens a tile takes at once (as many accumulators as registers hold),
    largest first, ending in 1: below 16, since TVM takes 1024 bytes of accumulators and more from a
    workspace of its runtime, which is not there. `in_place`: one token's products take fields where
    they lie in their bytes; sums of bits 2g then carry the factor 4^g and have their own lanes.
    `wide_lookup`: one instruction reads a table of 64 bytes, so that unpacking five trits a byte
    keeps up with memory. `matrices`: chunks of tokens go to AMX (amx.py), single tokens do not.
    """

    name: str
    llvm: Mapping[str, object]
    token_blocks: tuple[int, ...]
    accumulate: Accumulate = field(repr=False)
    in_place: bool = False
    wide_lookup: bool = False
    matrices: bool = False

    @property
    def triple(self) -> str:
        return str(self.llvm["mtriple"])

    def sums(self, tokens: int) -> int:
        """int32 lanes of accumulator for a block of tokens."""
        return LANES * (GROUPS if self.in_place and tokens == 1 else tokens)

    def total(self, sums: Buffer, token: Expr, tokens: int) -> Expr:
        """A token's 16 sums."""
        if not self.in_place or tokens > 1:
            return load(sums, token * LANES, INTS)
        # Exact: the sums of group g are multiples of 4^g, and |sum| < 2^31 for K < 2^17.
        groups = (load(sums, g * LANES, INTS) for g in range(GROUPS))
        return reduce(add, (T.shift_right(s, splat_int(2 * g)) for g, s in enumerate(groups)))


# --- dot products of four bytes into int32: one instruction a field; none can saturate -----------


@dataclass(frozen=True)
class _Dot:
    """`intrinsic(sums, digits, codes)` on vectors of `width` bytes.

    `unsigned`: it takes digits as unsigned bytes, so that one token's need no shift.
    """

    intrinsic: str
    width: int
    unsigned: bool
    lookup: Lookup

    def __call__(self, layout: str, block: Part, codes: Codes, sums: Buffer, tokens: int) -> None:
        lanes = self.width // 4
        in_place = self.unsigned and tokens == 1
        for first in range(0, BLOCK, self.width):
            fields = FIELDS[layout](block(first, self.width), self.width, self.lookup)
            for s, group in enumerate(fields):
                digits = group.in_place() if in_place else group.digits()
                row = group.shift // 2 if in_place else 0
                for token in range(tokens):
                    at = (row + token) * LANES + first // 4
                    cell = load(sums, at, f"int32x{lanes}")
                    store(sums, at, self._multiply(cell, digits, codes(token, s)), lanes)

    def _multiply(self, sums: Expr, digits: Expr, codes: Expr) -> Expr:
        kind = f"int8x{self.width}"
        weights = digits if self.unsigned else T.reinterpret(kind, digits)
        four = T.reinterpret(kind, T.broadcast(codes, self.width // 4))
        return T.call_llvm_pure_intrin(
            f"int32x{self.width // 4}", self.intrinsic, sums, weights, four
        )


# --- AVX2: vpmaddubsw makes int16 pairs (at most 5 * 2 * 2 * 128, no saturation), vpmaddwd int32 --


def _avx2_accumulate(layout: str, block: Part, codes: Codes, sums: Buffer, tokens: int) -> None:
    half = BLOCK // 2
    ones = T.broadcast(T.int16(1), 16)
    for first in range(0, BLOCK, half):
        fields: Sequence[Field] = FIELDS[layout](block(first, half), half, avx2_lookup)
        digits = [group.digits() for group in fields]
        for token in range(tokens):
            pairs = [_maddubs(weights, codes(token, s)) for s, weights in enumerate(digits)]
            total = reduce(add, pairs)
            quads = T.call_llvm_pure_intrin("int32x8", "llvm.x86.avx2.pmadd.wd", total, ones)
            _add(sums, token * LANES + first // 4, quads, half // 4)


def _maddubs(weights: Expr, codes: Expr) -> Expr:
    broadcast = T.reinterpret("int8x32", T.broadcast(codes, LANES // 2))
    return T.call_llvm_pure_intrin("int16x16", "llvm.x86.avx2.pmadd.ub.sw", weights, broadcast)


def _add(sums: Buffer, offset: int, vector: Expr, count: int = LANES) -> None:
    store(sums, offset, load(sums, offset, f"int32x{count}") + vector, count)


# --- portable: int16 products by plain vector arithmetic, widened once a block -------------------


def _portable_accumulate(layout: str, block: Part, codes: Codes, sums: Buffer, tokens: int) -> None:
    """Bytes in pairs as int16: the even and the odd byte's digits times the even and odd code."""
    pairs = T.reinterpret("uint16x32", block(0, BLOCK))
    low = T.bitwise_and(pairs, T.broadcast(T.uint16(255), 32))
    high = T.shift_right(pairs, T.broadcast(T.uint16(8), 32))
    even, odd = (DIGITS[layout](I.bind(T.reinterpret("int16x32", half))) for half in (low, high))
    for token in range(tokens):
        total = T.broadcast(T.int16(0), 32)
        for s in range(len(even)):
            pair = I.bind(T.reinterpret("int16x32", T.broadcast(codes(token, s), LANES)))
            first = T.shift_right(T.shift_left(pair, _shift(8)), _shift(8))
            total = total + even[s] * first + odd[s] * T.shift_right(pair, _shift(8))
        both = I.bind(T.reinterpret(INTS, total))
        left = T.shift_right(T.shift_left(both, splat_int(16)), splat_int(16))
        _add(sums, token * LANES, left + T.shift_right(both, splat_int(16)))


def _shift(bits: int) -> Expr:
    return T.broadcast(T.int16(bits), 32)


# --- tables of 64 bytes --------------------------------------------------------------------------


def vbmi_lookup(entries: Bytes, index: Expr, width: int) -> Expr:
    """vpermb reads the low six bits of an index by itself."""
    intrinsic = "llvm.x86.avx512.permvar.qi.512"
    return T.call_llvm_pure_intrin(f"uint8x{width}", intrinsic, table(entries), index)


def neon_lookup(entries: Bytes, index: Expr, width: int) -> Expr:
    """tbl of four registers; it gives zero for an index above 63."""
    quarters = [table(entries[first : first + width]) for first in range(0, 64, width)]
    low = T.bitwise_and(index, T.broadcast(T.uint8(63), width))
    return T.call_llvm_pure_intrin(f"uint8x{width}", "llvm.aarch64.neon.tbl4", *quarters, low)


def _by_quarters(intrinsic: str) -> Lookup:
    """A shuffle within 16 bytes, once a quarter of the table; bits 4 and 5 choose the quarter."""

    def lookup(entries: Bytes, index: Expr, width: int) -> Expr:
        def bit(mask: int) -> Expr:
            picked = T.bitwise_and(index, T.broadcast(T.uint8(mask), width))
            return picked != T.broadcast(T.uint8(0), width)

        low = I.bind(T.bitwise_and(index, T.broadcast(T.uint8(15), width)))
        found = [
            T.call_llvm_pure_intrin(f"uint8x{width}", intrinsic, table(quarter), low)
            for quarter in np.tile(entries.reshape(4, 16), width // 16)
        ]
        lower, upper = (T.Select(bit(16), found[q + 1], found[q]) for q in (0, 2))
        return T.Select(bit(32), upper, lower)

    return lookup


avx2_lookup = _by_quarters("llvm.x86.avx2.pshuf.b")
avx512_lookup = _by_quarters("llvm.x86.avx512.pshuf.b.512")

# --- the variants --------------------------------------------------------------------------------

_X86 = {"kind": "llvm", "mtriple": "x86_64-linux-gnu"}
_AVX512 = ["+avx512vnni", "-prefer-256-bit"]
_AARCH64 = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "generic"}

_VNNI = "llvm.x86.avx512.vpdpbusd"
_SDOT, _USDOT = "llvm.aarch64.neon.sdot", "llvm.aarch64.neon.usdot"

_AMX = [*_AVX512, "+avx512vbmi", "+amx-tile", "+amx-int8"]

ISAS: dict[str, Isa] = {
    isa.name: isa
    for isa in (
        Isa(
            "x86-64-amx",
            _X86 | {"mcpu": "x86-64-v4", "mattr": _AMX},
            (1,),
            _Dot(f"{_VNNI}.512", 64, True, vbmi_lookup),
            in_place=True,
            wide_lookup=True,
            matrices=True,
        ),
        Isa(
            "x86-64-avx512vbmi",
            _X86 | {"mcpu": "x86-64-v4", "mattr": [*_AVX512, "+avx512vbmi"]},
            (12, 4, 1),
            _Dot(f"{_VNNI}.512", 64, True, vbmi_lookup),
            in_place=True,
            wide_lookup=True,
        ),
        Isa(
            "x86-64-avx512vnni",
            _X86 | {"mcpu": "x86-64-v4", "mattr": _AVX512},
            (12, 4, 1),
            _Dot(f"{_VNNI}.512", 64, True, avx512_lookup),
            in_place=True,
        ),
        Isa(
            "x86-64-avxvnni",
            _X86 | {"mcpu": "x86-64-v3", "mattr": ["+avxvnni"]},
            (4, 1),
            _Dot(f"{_VNNI}.256", 32, True, avx2_lookup),
            in_place=True,
        ),
        Isa("x86-64-v3", _X86 | {"mcpu": "x86-64-v3"}, (4, 1), _avx2_accumulate),
        Isa("portable", _X86 | {"mcpu": "x86-64"}, (4, 1), _portable_accumulate),
        Isa(
            "aarch64-i8mm",
            _AARCH64 | {"mattr": ["+dotprod", "+i8mm"]},
            (4, 1),
            _Dot(_USDOT, 16, True, neon_lookup),
            in_place=True,
            wide_lookup=True,
        ),
        Isa(
            "aarch64-dotprod",
            _AARCH64 | {"mattr": ["+dotprod"]},
            (4, 1),
            _Dot(_SDOT, 16, False, neon_lookup),
            wide_lookup=True,
        ),
        Isa("aarch64", _AARCH64, (4, 1), _portable_accumulate),
    )
}
