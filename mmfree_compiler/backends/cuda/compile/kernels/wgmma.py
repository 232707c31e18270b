"""Products of many rows of codes by Hopper's tensor cores (wgmma), in Gluon: see products.py.

A program multiplies one weight after another, so that its sums fit into registers. Blocks of codes
and weights come through a ring in shared memory, into which they are copied ahead; the first blocks
of a weight while the one before it is multiplied. Weights are the left operand, which these tensor
cores take from registers: packed bytes become digits there. Sums are (COLUMNS, TOKENS).

A block has layouts.BLOCK columns of the weight, of which there are more blocks than the ring holds,
or one less. COLUMNS is 16 times the number of warps.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia import hopper
from triton.experimental.gluon.language.nvidia.ampere import async_copy

from mmfree_compiler.backends.cuda.compile.kernels.gemm import unpacked
from mmfree_compiler.backends.cuda.compile.kernels.products import ALIGNMENT, BLOCK, BYTES

FIELDS = gl.constexpr(BLOCK.value // BYTES.value)
# Triton 3.6 has it by its earlier name.
_copy = getattr(async_copy, "async_load", None) or async_copy.async_copy_global_to_shared


@gluon.constexpr_function
def sum_layout(tokens: int, warps: int) -> gl.NVMMADistributedLayout:
    """That of sums: 16 columns in a warp."""
    return gl.NVMMADistributedLayout([3, 0], [warps, 1], [16, tokens, 32])


@gluon.constexpr_function
def copy_layout(width: int, warps: int) -> gl.BlockedLayout:
    """Rows of `width` bytes, 16 in a thread: one copy."""
    lanes = width // 16
    return gl.BlockedLayout([1, 16], [32 // lanes, lanes], [warps, 1], [1, 0])


@gluon.constexpr_function
def blocks(k: int) -> int:
    """Blocks in a row of k columns."""
    return int(-(-k // BLOCK.value))


@gluon.jit
def ring(TOKENS: gl.constexpr, COLUMNS: gl.constexpr, STAGES: gl.constexpr) -> gl.tuple:
    """Shared memory for STAGES blocks of codes, and of a weight."""
    CODES: gl.constexpr = gl.NVMMASharedLayout(128, 8)
    WORDS: gl.constexpr = gl.SwizzledSharedLayout(16, 2, 4, [1, 0])
    return (
        gl.allocate_shared_memory(gl.int8, [STAGES, TOKENS, BLOCK], CODES),
        gl.allocate_shared_memory(gl.int8, [STAGES, COLUMNS, BYTES], WORDS),
    )


@gluon.jit
def weight_rows(
    weight: gl.tensor, first_column: gl.tensor, K: gl.constexpr, ring: gl.tuple
) -> gl.tensor:
    """Pointers at the first block of rows of a weight."""
    LAYOUT: gl.constexpr = copy_layout(BYTES, gl.num_warps())
    ROW: gl.constexpr = blocks(K) * BYTES
    column = first_column.to(gl.int64) + gl.arange(0, ring[1].shape[1], gl.SliceLayout(1, LAYOUT))
    byte = gl.arange(0, BYTES, gl.SliceLayout(0, LAYOUT))
    return weight.to(gl.pointer_type(gl.int8)) + column[:, None] * ROW + byte[None, :]


@gluon.jit
def code_rows(
    codes: gl.tensor, stride: gl.tensor, first_token: gl.tensor, tokens: gl.tensor, ring: gl.tuple
) -> gl.tensor:
    """Pointers at the first block of rows of codes. Those that there are not are the last again."""
    LAYOUT: gl.constexpr = copy_layout(BLOCK, gl.num_warps())
    token = first_token + gl.arange(0, ring[0].shape[1], gl.SliceLayout(1, LAYOUT))
    offset = gl.minimum(token, tokens - 1).to(gl.int64) * (stride // ALIGNMENT * ALIGNMENT)
    return codes + offset[:, None] + gl.arange(0, BLOCK, gl.SliceLayout(0, LAYOUT))[None, :]


@gluon.jit
def start_weight(ring: gl.tuple, rows: gl.tensor) -> None:
    """Start to copy the first blocks of the first weight."""
    for block in gl.static_range(ring[0].shape[0] - 1):
        _copy(ring[1].index(block), rows + block * BYTES)


@gluon.jit
def start_codes(ring: gl.tuple, rows: gl.tensor, K: gl.constexpr) -> None:
    """Start to copy the first blocks of its codes, after `start_weight`."""
    for block in gl.static_range(ring[0].shape[0] - 1):
        _copy_codes(ring[0].index(block), rows, block, K)
        async_copy.commit_group()


@gluon.jit
def end_copies() -> None:
    """Wait for all of them: for a program that ends early."""
    async_copy.wait_group(0)


@gluon.jit
def prefetch(weight: gl.tensor, first_column: gl.tensor, K: gl.constexpr, ring: gl.tuple) -> None:
    """Have rows of a weight brought into the L2 cache: half a row by each thread."""
    HALF: gl.constexpr = blocks(K) * BYTES // 2
    LAYOUT: gl.constexpr = gl.BlockedLayout([1], [32], [gl.num_warps()], [0])
    half = 2 * first_column.to(gl.int64) + gl.arange(0, 2 * ring[1].shape[1], LAYOUT)
    gl.inline_asm_elementwise(
        f"cp.async.bulk.prefetch.L2.global [$1], {HALF}; // $0",
        "=r,l",
        [weight.to(gl.pointer_type(gl.int8)) + half * HALF],
        dtype=gl.int32,
        is_pure=False,
        pack=1,
    )


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
    """Sums of rows `codes` with rows `weight`, whose first blocks are being copied.

    FIRST blocks went through the ring before; `after` are the next product's codes and weight, of
    K_AFTER columns, or (). PARTS sums, at most FIELDS, are made side by side: those of few tokens
    take longer to wait for than to make.
    """
    STAGES: gl.constexpr = ring[0].shape[0]
    AHEAD: gl.constexpr = STAGES - 1
    BLOCKS: gl.constexpr = blocks(K)
    SUMS: gl.constexpr = sum_layout(ring[0].shape[1], gl.num_warps())
    DIGITS: gl.constexpr = gl.DotOperandLayout(0, SUMS, 4)
    zeros = gl.zeros([ring[1].shape[1], ring[0].shape[1]], gl.int32, SUMS)
    sums = (hopper.warpgroup_mma_init(zeros),) * PARTS
    for block in range(BLOCKS):
        slot = (FIRST + block) % STAGES
        async_copy.wait_group(AHEAD - 1)
        gl.barrier()
        hopper.fence_async_shared()
        digits = ring[1].index(slot).load(DIGITS)
        # The tensor cores still multiply the block before: registers of digits change after that.
        sums = _finished(sums)
        for s in gl.static_range(FIELDS):
            q = ring[0].index(slot).slice(s * BYTES, BYTES, 1).permute((1, 0))
            made = hopper.warpgroup_mma(unpacked(digits, s, ASM), q, sums[0], is_async=True)
            sums += (made,)
            sums = sums[1:]
        # The slot of the block before is free: all warps have waited for its sums.
        free = (FIRST + block + AHEAD) % STAGES
        if block + AHEAD < BLOCKS:
            _copy_codes(ring[0].index(free), codes, block + AHEAD, K)
            _copy(ring[1].index(free), weight + (block + AHEAD) * BYTES)
        elif len(after) > 0:
            _copy_codes(ring[0].index(free), after[0], block + AHEAD - BLOCKS, K_AFTER)
            _copy(ring[1].index(free), after[1] + (block + AHEAD - BLOCKS) * BYTES)
        async_copy.commit_group()
    parts = _finished(sums)
    total = parts[0]
    for n in gl.static_range(1, PARTS):
        total += parts[n]
    return total


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


@gluon.jit
def _finished(sums: gl.tuple) -> gl.tuple:
    """Sums once the tensor cores have made them."""
    if len(sums) == 1:
        found = (hopper.warpgroup_mma_wait(0, deps=sums),)
    else:
        found = hopper.warpgroup_mma_wait(0, deps=sums)
    return found


@gluon.jit
def _copy_codes(
    target: gl.shared_memory_descriptor, rows: gl.tensor, block: gl.tensor, K: gl.constexpr
) -> None:
    """Start to copy a block of codes; beyond the end of a row come zeros."""
    if K % BLOCK == 0:
        _copy(target, rows + block * BLOCK)
    else:
        WIDTH: gl.constexpr = (K + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        LAYOUT: gl.constexpr = copy_layout(BLOCK, gl.num_warps())
        k = block * BLOCK + gl.arange(0, BLOCK, gl.SliceLayout(0, LAYOUT))[None, :]
        _copy(target, rows + block * BLOCK, mask=k < WIDTH)
