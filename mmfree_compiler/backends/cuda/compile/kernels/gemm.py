"""Products of many rows of codes, by tensor cores: see products.py."""

from __future__ import annotations

import triton
import triton.language as tl

from mmfree_compiler.backends.cuda.compile.kernels.products import ALIGNMENT, BLOCK, BYTES


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
        words += (digits,)  # type: ignore[assignment]  # it grows
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
        rows += (q,)  # type: ignore[assignment]  # it grows
    return rows


@triton.jit
def _fields(digits: tl.tensor, ASM: tl.constexpr) -> tl.tensor:
    """Bytes (COLUMNS, BLOCK_K / 4) as digits in the order of their columns: (COLUMNS, BLOCK_K).

    One product of all of them waits once for what it loads, and not for every field.
    """
    COLUMNS: tl.constexpr = digits.shape[0]
    COUNT: tl.constexpr = digits.shape[1] // BYTES
    even = tl.join(unpacked(digits, 0, ASM), unpacked(digits, 2, ASM))
    odd = tl.join(unpacked(digits, 1, ASM), unpacked(digits, 3, ASM))
    fields = tl.reshape(tl.join(even, odd), [COLUMNS, COUNT, BYTES, 2, 2])
    return tl.reshape(tl.permute(fields, (0, 1, 3, 4, 2)), [COLUMNS, COUNT * 4 * BYTES])


@triton.jit
def unpacked(digits: tl.tensor, S: tl.constexpr, ASM: tl.constexpr) -> tl.tensor:
    """Field S of each byte; one instruction does four bytes."""
    if ASM:
        found = tl.inline_asm_elementwise(
            f"{{.reg .b32 t; shr.u32 t, $1, {2 * S}; and.b32 $0, t, 0x03030303;}}",
            "=r,r",
            [digits],
            dtype=tl.int8,
            is_pure=True,
            pack=4,
        )
    else:
        found = (digits >> (2 * S)) & 3
    return found
