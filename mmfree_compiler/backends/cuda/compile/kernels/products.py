"""Products of int8 activation codes and packed ternary weights: exact integers.

Weights are read as layouts.py packs them, as digits w + 1. So a product is `sum(q * (w + 1))`, from
which the caller subtracts the sum of the codes q. Its columns are rows of the weight.

What the functions take:

- `codes` points at int8 rows that are `stride` bytes apart, a multiple of 16; a row is zero from
  column K up to the next multiple of 16.
- `weights` points at the bytes of a whole packed weight of K columns. Both pointers are known to be
  multiples of 16 while compiling. That `stride` is one too is said by `stride // 16 * 16`: Triton
  loses tl.multiple_of on the arguments of a function that it inlines.
- COLUMNS is a power of two of at most layouts.ROWS, and divides `first_column`.
- BLOCK_K, the columns of the weight in one block, is a power of two of at least layouts.BLOCK.
- ASM: use PTX instructions. Without it, the same integers come from plain operations.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mmfree_compiler.backends.cuda import layouts, strides

BLOCK = tl.constexpr(layouts.BLOCK)
BYTES = tl.constexpr(layouts.BLOCK_BYTES)
WORDS = tl.constexpr(layouts.BLOCK_BYTES // 4)
ALIGNMENT = tl.constexpr(strides.ALIGNMENT)
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
            sums = _dp4a((words[step] >> (2 * s)) & 0x03030303, q[None, :], sums, ASM)
    return sums


@triton.jit
def _dp4a(a: tl.tensor, b: tl.tensor, c: tl.tensor, ASM: tl.constexpr) -> tl.tensor:
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


@triton.jit
def gemm(
    codes: tl.tuple,
    stride: tl.tensor,
    first_token: tl.tensor,
    tokens: tl.tensor,
    weights: tl.tuple,
    first_column: tl.tensor,
    K: tl.constexpr,
    TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    ASM: tl.constexpr,
) -> tl.tuple:
    """Products of TOKENS rows of codes with some weights: int32 (TOKENS, COLUMNS), by tensor cores.

    Weight n meets rows of codes n; with one pointer to codes, all meet the same. The first row is
    `first_token`; rows at or beyond `tokens` are not read, and give 0. TOKENS is a power of two of
    at least 16, COLUMNS at least 16; below 64, Hopper runs Ampere's instructions.
    """
    ROW: tl.constexpr = (K + BLOCK - 1) // BLOCK * BYTES
    COUNT: tl.constexpr = len(weights)
    column = tl.cast(first_column, tl.int64) + tl.arange(0, COLUMNS)
    token = first_token + tl.arange(0, TOKENS)
    offset = (token.to(tl.int64) * (stride // ALIGNMENT * ALIGNMENT))[None, :]
    present = (token < tokens)[None, :]
    # Weights are the left operand: Hopper's tensor cores take that one from registers.
    sums = (tl.zeros([COLUMNS, TOKENS], tl.int32),) * COUNT
    for first in range(0, K, BLOCK_K):
        at = first // 4 + tl.arange(0, BLOCK_K // 4)
        digits = _load_digits(weights, column * ROW, at, ROW)
        q = _load_codes(codes, offset, first + tl.arange(0, BLOCK_K), present, K)
        for n in tl.static_range(COUNT):
            field = _fields(digits[n], ASM)
            sums += (tl.dot(field, q[n % len(codes)], sums[n], out_dtype=tl.int32),)
        sums = sums[COUNT:]
    made = ()
    for n in tl.static_range(COUNT):
        made += (tl.trans(sums[n]),)  # type: ignore[assignment]  # it grows
    return made


@triton.jit
def _load_digits(weights: tl.tuple, row: tl.tensor, at: tl.tensor, ROW: tl.constexpr) -> tl.tuple:
    """Bytes `at` of rows of each weight: (COLUMNS, BLOCK_K / 4)."""
    words = ()
    for n in tl.static_range(len(weights)):
        places = weights[n].to(tl.pointer_type(tl.int8)) + row[:, None] + at[None, :]
        digits = tl.load(places, mask=(at < ROW)[None, :], other=0)
        words += (digits,)  # type: ignore[assignment]
    return words


@triton.jit
def _load_codes(
    codes: tl.tuple, offset: tl.tensor, k: tl.tensor, present: tl.tensor, K: tl.constexpr
) -> tl.tuple:
    """Codes k of each row: (BLOCK_K, TOKENS)."""
    WIDTH: tl.constexpr = (K + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
    rows = ()
    for n in tl.static_range(len(codes)):
        mask = present & (k < WIDTH)[:, None]
        q = tl.load(codes[n] + offset + k[:, None], mask=mask, other=0)
        rows += (q,)  # type: ignore[assignment]
    return rows


@triton.jit
def _fields(digits: tl.tensor, ASM: tl.constexpr) -> tl.tensor:
    """Bytes (COLUMNS, BLOCK_K / 4) as digits in the order of their columns: (COLUMNS, BLOCK_K).

    One product of all of them waits once for what it loads, and not for every field.
    """
    COLUMNS: tl.constexpr = digits.shape[0]
    COUNT: tl.constexpr = digits.shape[1] // BYTES
    even = tl.join(_field(digits, 0, ASM), _field(digits, 2, ASM))
    odd = tl.join(_field(digits, 1, ASM), _field(digits, 3, ASM))
    fields = tl.reshape(tl.join(even, odd), [COLUMNS, COUNT, BYTES, 2, 2])
    return tl.reshape(tl.permute(fields, (0, 1, 3, 4, 2)), [COLUMNS, COUNT * 4 * BYTES])


@triton.jit
def _field(digits: tl.tensor, S: tl.constexpr, ASM: tl.constexpr) -> tl.tensor:
    """Field S of each byte; one instruction does four bytes."""
    if ASM:
        field = tl.inline_asm_elementwise(
            f"{{.reg .b32 t; shr.u32 t, $1, {2 * S}; and.b32 $0, t, 0x03030303;}}",
            "=r,r",
            [digits],
            dtype=tl.int8,
            is_pure=True,
            pack=4,
        )
    else:
        field = (digits >> (2 * S)) & 3
    return field
