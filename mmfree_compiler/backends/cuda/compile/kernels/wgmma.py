"""Products of many rows of codes by Hopper's own tensor core instructions, in Gluon.

Codes and weights come through a ring: product_ring.py. Weights are the left operand, which these
instructions take from registers: packed bytes become digits there. Sums are (columns, tokens), with
16 columns in a warp. A program is one warpgroup: when its warps start to multiply a piece, all of
them have done with the piece before.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia import hopper

from mmfree_compiler.backends.cuda.compile.kernels import product_ring
from mmfree_compiler.backends.cuda.compile.kernels.gemm import unpacked
from mmfree_compiler.backends.cuda.compile.kernels.products import BYTES, FIELDS


@gluon.constexpr_function
def sum_layout(tokens: int, warps: int) -> gl.NVMMADistributedLayout:
    """That of sums."""
    return gl.NVMMADistributedLayout([3, 0], [warps, 1], [16, tokens, 32])


@gluon.jit
def product(
    ring: gl.tuple,
    codes: gl.tensor,
    weight: gl.tensor,
    K: gl.constexpr,
    FIRST: gl.constexpr,
    after: gl.tuple,
    K_AFTER: gl.constexpr,
    PARTS: gl.constexpr,
    ASM: gl.constexpr,
) -> gl.tensor:
    """Sums of rows `codes` with rows `weight`, whose first pieces are being copied.

    FIRST pieces went through the ring before; `after` are the next product's codes and weight, of
    K_AFTER columns, or (). PARTS sums are made side by side: those of few tokens take longer to
    wait for than to make.
    """
    TOKENS: gl.constexpr = ring[0].shape[1]
    COLUMNS: gl.constexpr = ring[1].shape[1]
    WIDTH: gl.constexpr = ring[1].shape[2]
    SUMS: gl.constexpr = sum_layout(TOKENS, gl.num_warps())
    DIGITS: gl.constexpr = gl.DotOperandLayout(0, SUMS, 4)
    PIECES: gl.constexpr = product_ring.pieces(K, ring)
    zeros = gl.full([COLUMNS, TOKENS], 0, gl.int32, SUMS)
    sums = (hopper.warpgroup_mma_init(zeros),) * PARTS
    # 0; Triton 3.6 fails on a loop of one piece that it knows to be one.
    first_piece = gl.program_id(2) if PIECES == 1 else 0
    for piece in range(first_piece, PIECES):
        slot = (FIRST + piece) % ring[0].shape[0]
        product_ring.wait(ring)
        hopper.fence_async_shared()
        digits = ()
        for first in gl.static_range(0, WIDTH, BYTES):
            part = ring[1].index(slot).slice(first, BYTES, 1).load(DIGITS)
            digits += (part,)  # type: ignore[assignment]  # it grows
        # The tensor cores still multiply the piece before: registers of digits change after that.
        sums = _finished(sums)
        for n in gl.static_range(FIELDS * len(digits)):
            q = ring[0].index(slot).slice(n * BYTES, BYTES, 1).permute((1, 0))
            field = unpacked(digits[n // FIELDS], n % FIELDS, ASM)
            sums += (hopper.warpgroup_mma(field, q, sums[0], is_async=True),)
            sums = sums[1:]
        # All warps have waited for the piece before: its slot is free.
        product_ring.refill(ring, codes, weight, piece, K, FIRST, after, K_AFTER)
    made = _finished(sums)
    total = made[0]
    for n in gl.static_range(1, PARTS):
        total += made[n]
    return total


@gluon.jit
def _finished(sums: gl.tuple) -> gl.tuple:
    """Sums once the tensor cores have made them."""
    if len(sums) == 1:
        found = (hopper.warpgroup_mma_wait(0, deps=sums),)
    else:
        found = hopper.warpgroup_mma_wait(0, deps=sums)
    return found


@gluon.jit
def cut(sums: gl.tensor, COUNT: gl.constexpr) -> gl.tuple:
    """Sums as those of COUNT pieces of the tokens, a power of two, in the layout of a piece.

    Nothing moves: a thread has columns of all pieces.
    """
    COLUMNS: gl.constexpr = sums.shape[0]
    TOKENS: gl.constexpr = sums.shape[1] // 2
    if COUNT == 1:
        pieces = (sums,)
    else:
        halves = gl.split(gl.permute(gl.reshape(sums, [COLUMNS, 2, TOKENS]), (0, 2, 1)))
        LAYOUT: gl.constexpr = sum_layout(TOKENS, gl.num_warps())
        first, second = gl.convert_layout(halves[0], LAYOUT), gl.convert_layout(halves[1], LAYOUT)
        pieces = cut(first, COUNT // 2) + cut(second, COUNT // 2)
    return pieces
