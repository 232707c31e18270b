"""Products of a few rows of codes, by dp4a: see products.py."""

from __future__ import annotations

import triton
import triton.language as tl

from mmfree_compiler.backends.cuda.compile.kernels.products import ALIGNMENT, BLOCK, BYTES

WORDS = tl.constexpr(BYTES.value // 4)
# A thread reads at most this many blocks of weights before it multiplies: latencies overlap.
AHEAD = tl.constexpr(4)


@triton.jit
def gemv(
    codes: tl.tensor,
    stride: tl.tensor,
    tokens: tl.tensor,
    weights: tl.tensor,
    first_column: tl.tensor,
    K: tl.constexpr,
    TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    ASM: tl.constexpr,
) -> tl.tensor:
    """The products of the first `tokens` rows of codes: int32 (TOKENS, COLUMNS), by dp4a.

    TOKENS is a power of two. Rows at or beyond `tokens` are not read, and give 0. Every load has 16
    bytes if BLOCK_K is at most 256 times the number of warps, and COLUMNS * BLOCK_K at least 2,048
    times that.
    """
    STEPS: tl.constexpr = min(AHEAD, (K + BLOCK_K - 1) // BLOCK_K)
    CODE_WORDS: tl.constexpr = (K + ALIGNMENT - 1) // ALIGNMENT * (ALIGNMENT // 4)
    sums = (tl.zeros([COLUMNS, BLOCK_K // 16], tl.int32),) * TOKENS
    for first in range(0, K, STEPS * BLOCK_K):
        words = _load_words(weights, first_column, first, K, COLUMNS, BLOCK_K, STEPS)
        # ptxas would move each load down to where its words are used.
        tl.debug_barrier()
        for t in tl.static_range(TOKENS):
            row = codes + t * (stride // ALIGNMENT * ALIGNMENT)
            limit = tl.where(t < tokens, CODE_WORDS, 0)
            sums += (_add_words(sums[t], words, row, limit, first, BLOCK_K, STEPS, ASM),)
        sums = sums[TOKENS:]
    totals = tl.sum(_stack(sums, TOKENS), 1)
    return tl.trans(tl.reshape(totals, [COLUMNS, TOKENS]))


@triton.jit
def _load_words(
    weights: tl.tensor,
    first_column: tl.tensor,
    first: tl.tensor,
    K: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    STEPS: tl.constexpr,
) -> tl.tuple:
    """The words of STEPS blocks from column `first` of the weight on: (COLUMNS, BLOCK_K / 16)."""
    ROW: tl.constexpr = (K + BLOCK - 1) // BLOCK * WORDS
    row = tl.cast(first_column, tl.int64) + tl.arange(0, COLUMNS)
    rows = (weights.to(tl.pointer_type(tl.int32)) + row * ROW)[:, None]
    at = first // 16 + tl.arange(0, BLOCK_K // 16)[None, :]
    words = (tl.load(rows + at, mask=at < ROW, other=0),)
    for _ in tl.static_range(1, STEPS):
        at += BLOCK_K // 16
        words += (tl.load(rows + at, mask=at < ROW, other=0),)  # type: ignore[assignment]  # it grows
    return words


@triton.jit
def _add_words(
    sums: tl.tensor,
    words: tl.tuple,
    codes: tl.tensor,
    limit: tl.tensor,
    first: tl.tensor,
    BLOCK_K: tl.constexpr,
    STEPS: tl.constexpr,
    ASM: tl.constexpr,
) -> tl.tensor:
    """`sums` plus the products of blocks of words and one row of codes, read up to word `limit`."""
    codes = codes.to(tl.pointer_type(tl.int32))
    for step in tl.static_range(STEPS):
        at = first // 16 + step * (BLOCK_K // 16) + tl.arange(0, BLOCK_K // 16)
        for s in tl.static_range(4):
            place = at // WORDS * (4 * WORDS) + s * WORDS + at % WORDS
            q = tl.load(codes + place, mask=place < limit, other=0)
            sums = dp4a((words[step] >> (2 * s)) & 0x03030303, q[None, :], sums, ASM)
    return sums


@triton.jit
def dp4a(a: tl.tensor, b: tl.tensor, c: tl.tensor, ASM: tl.constexpr) -> tl.tensor:
    """c plus the dot product of the four int8 of a and of b."""
    if ASM:
        c = tl.inline_asm_elementwise(
            "dp4a.s32.s32 $0, $1, $2, $3;",
            "=r,r,r,r",
            [a, b, c],
            dtype=tl.int32,
            is_pure=True,
            pack=1,
        )
    else:
        for shift in tl.static_range(0, 32, 8):
            c += (a << (24 - shift) >> 24) * (b << (24 - shift) >> 24)
    return c


@triton.jit
def _stack(blocks: tl.tuple, COUNT: tl.constexpr) -> tl.tensor:
    """COUNT blocks, a power of two, in their order along new last axes of 2."""
    if COUNT == 1:
        stacked = blocks[0]
    else:
        stacked = tl.join(_stack(blocks[::2], COUNT // 2), _stack(blocks[1::2], COUNT // 2))
    return stacked
