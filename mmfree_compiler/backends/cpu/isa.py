"""Instruction sets: how a block of packed weights meets int8 codes. Exact integers in each.

All variants read the same layout (`layouts.TILE16_2BIT`), so one copy of the weights serves them:
a block of 64 bytes holds, for 16 rows, 16 values of k; byte 4i+j belongs to row i; its 2-bit field
s holds `w + 1` of k = 4s + j. The dot product of the unsigned w+1 with the signed codes gives
`sum(q w) + sum(q)`; the epilogue subtracts the sum of the codes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import reduce
from operator import add

from tvm.script import tirx as T
from tvm.tirx.script.builder import ir as I

from mmfree_compiler.backends.cpu.vector import INTS, LANES, Buffer, Expr, load, splat_int, store

BLOCK = 64  # bytes: 16 rows x 16 values of k x 2 bits
FIELDS = 4  # 2-bit fields of a byte

Block = Callable[[int, int], Expr]  # (first byte, bytes) -> that part of the block, uint8
Codes = Callable[[int, int], Expr]  # (token, field) -> the int32 that holds its four codes


@dataclass(frozen=True)
class Isa:
    """One variant: its LLVM target and how it multiplies.

    `token_blocks`: how many tokens a tile takes at once (as many accumulators as registers hold),
    largest first, ending in 1. `sums(tokens)`: int32 lanes of accumulator, below 256: TVM takes
    1024 bytes and more from a workspace of its runtime, which is not there. `accumulate` adds one
    block's products for `tokens` tokens; `total` reads a token's 16 sums.
    """

    name: str
    llvm: Mapping[str, object]
    token_blocks: tuple[int, ...]
    accumulate: Callable[[Block, Codes, Buffer, int], None]
    sums: Callable[[int], int]
    total: Callable[[Buffer, Expr, int], Expr]

    @property
    def triple(self) -> str:
        return str(self.llvm["mtriple"])


def _sums(tokens: int) -> int:
    return tokens * LANES


def _total(sums: Buffer, token: Expr, tokens: int) -> Expr:  # noqa: ARG001 - one signature for all
    return load(sums, token * LANES, INTS)


def _field(part: Expr, s: int, width: int) -> Expr:
    """Field s of every byte, moved down to bits 0 and 1."""
    moved = T.shift_right(part, T.broadcast(T.uint8(2 * s), width)) if s else part
    return I.bind(T.bitwise_and(moved, T.broadcast(T.uint8(3), width)))


def _add(sums: Buffer, offset: int, vector: Expr, count: int = LANES) -> None:
    store(sums, offset, load(sums, offset, f"int32x{count}") + vector, count)


# --- AVX512-VNNI: vpdpbusd, four u8 x s8 products a lane into int32; it cannot saturate ---------


def _dpbusd(sums: Expr, weights: Expr, codes: Expr) -> Expr:
    broadcast = T.reinterpret("int8x64", T.broadcast(codes, LANES))
    return T.call_llvm_pure_intrin(INTS, "llvm.x86.avx512.vpdpbusd.512", sums, weights, broadcast)


def _vnni_accumulate(block: Block, codes: Codes, sums: Buffer, tokens: int) -> None:
    if tokens == 1:
        return _vnni_accumulate_one(block, codes, sums)
    weights = block(0, BLOCK)
    for s in range(FIELDS):
        field = _field(weights, s, BLOCK)
        for token in range(tokens):
            at = token * LANES
            store(sums, at, _dpbusd(load(sums, at, INTS), field, codes(token, s)))
    return None


def _vnni_accumulate_one(block: Block, codes: Codes, sums: Buffer) -> None:
    """One token: mask without shifting; field s has its own sums, which carry the factor 4^s."""
    weights = block(0, BLOCK)
    for s in range(FIELDS):
        field = T.bitwise_and(weights, T.broadcast(T.uint8(3 << 2 * s), BLOCK))
        at = s * LANES
        store(sums, at, _dpbusd(load(sums, at, INTS), field, codes(0, s)))


def _vnni_sums(tokens: int) -> int:
    return LANES * (FIELDS if tokens == 1 else tokens)


def _vnni_total(sums: Buffer, token: Expr, tokens: int) -> Expr:
    if tokens > 1:
        return _total(sums, token, tokens)
    # Exact: the sums of field s are multiples of 4^s, and |sum| < 2^31 for K < 2^19.
    fields = (T.shift_right(load(sums, s * LANES, INTS), splat_int(2 * s)) for s in range(FIELDS))
    return reduce(add, fields)


# --- AVX2: vpmaddubsw makes int16 pairs (at most 4 * 2 * 2 * 128, no saturation), vpmaddwd int32 --


def _avx2_accumulate(block: Block, codes: Codes, sums: Buffer, tokens: int) -> None:
    half_bytes, half_lanes = BLOCK // 2, LANES // 2
    ones = T.broadcast(T.int16(1), 16)
    for half in range(2):
        weights = block(half * half_bytes, half_bytes)
        fields = [_field(weights, s, half_bytes) for s in range(FIELDS)]
        for token in range(tokens):
            pairs = [_maddubs(fields[s], codes(token, s)) for s in range(FIELDS)]
            total = pairs[0] + pairs[1] + pairs[2] + pairs[3]
            quads = T.call_llvm_pure_intrin("int32x8", "llvm.x86.avx2.pmadd.wd", total, ones)
            _add(sums, token * LANES + half * half_lanes, quads, half_lanes)


def _maddubs(weights: Expr, codes: Expr) -> Expr:
    broadcast = T.reinterpret("int8x32", T.broadcast(codes, LANES // 2))
    return T.call_llvm_pure_intrin("int16x16", "llvm.x86.avx2.pmadd.ub.sw", weights, broadcast)


# --- portable: int16 products by plain vector arithmetic, widened once a block -------------------


def _portable_accumulate(block: Block, codes: Codes, sums: Buffer, tokens: int) -> None:
    """Bytes in pairs as int16: the even and the odd byte's field times the even and odd code."""
    weights = T.reinterpret("int16x32", block(0, BLOCK))
    three = T.broadcast(T.int16(3), 32)
    low, high = (
        [
            I.bind(T.bitwise_and(T.shift_right(weights, _shift(8 * odd + 2 * s)), three))
            for s in range(FIELDS)
        ]
        for odd in (0, 1)
    )
    for token in range(tokens):
        total = T.broadcast(T.int16(0), 32)
        for s in range(FIELDS):
            pair = I.bind(T.reinterpret("int16x32", T.broadcast(codes(token, s), LANES)))
            even = T.shift_right(T.shift_left(pair, _shift(8)), _shift(8))
            total = total + low[s] * even + high[s] * T.shift_right(pair, _shift(8))
        both = I.bind(T.reinterpret(INTS, total))
        left = T.shift_right(T.shift_left(both, splat_int(16)), splat_int(16))
        _add(sums, token * LANES, left + T.shift_right(both, splat_int(16)))


def _shift(bits: int) -> Expr:
    return T.broadcast(T.int16(bits), 32)


_X86 = {"kind": "llvm", "mtriple": "x86_64-linux-gnu"}
_AVX512 = _X86 | {"mcpu": "x86-64-v4", "mattr": ["+avx512vnni", "-prefer-256-bit"]}
_AVX2 = _X86 | {"mcpu": "x86-64-v3"}
_PORTABLE = _X86 | {"mcpu": "x86-64"}
_AARCH64 = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "generic"}

ISAS: dict[str, Isa] = {
    isa.name: isa
    for isa in (
        Isa("x86-64-avx512vnni", _AVX512, (12, 4, 1), _vnni_accumulate, _vnni_sums, _vnni_total),
        Isa("x86-64-v3", _AVX2, (4, 1), _avx2_accumulate, _sums, _total),
        Isa("portable", _PORTABLE, (4, 1), _portable_accumulate, _sums, _total),
        Isa("aarch64", _AARCH64, (4, 1), _portable_accumulate, _sums, _total),
    )
}
