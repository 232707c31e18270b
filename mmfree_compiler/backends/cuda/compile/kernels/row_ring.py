"""Rows of one sequence on their way through shared memory, in Gluon: rings that are filled ahead.

In a loop over tokens Triton waits for the rows of each one. Here a program waits once for a block
of TOKENS of them, and has loaded STAGES blocks ahead; nothing but the arithmetic of a recurrence is
between two tokens of a block.

A ring (STAGES * TOKENS, COLUMNS) has the columns of a program of rows of fp32: row r of a sequence
is in its row r % (STAGES * TOKENS).
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl
from triton.experimental.gluon.language.nvidia.ampere import async_copy

from mmfree_compiler.backends.cuda.compile.kernels import copies

_WIDEST = gl.constexpr(4)  # floats that a thread copies at once: 16 bytes


@gluon.constexpr_function
def column_layout(warps: int) -> gl.BlockedLayout:
    """A thread for each column."""
    return gl.BlockedLayout([1], [32], [warps], [0])


@gluon.constexpr_function
def _block_layout(columns: int, warps: int) -> gl.BlockedLayout:
    """Blocks (TOKENS, columns), in the widest copies."""
    lanes = min(32, columns // _WIDEST)
    return gl.BlockedLayout([1, _WIDEST], [32 // lanes, lanes], [warps, 1], [1, 0])


@gluon.jit
def opened(
    rows: gl.tuple,
    STRIDES: gl.constexpr,
    first: gl.tensor,
    end: gl.tensor,
    STAGES: gl.constexpr,
    TOKENS: gl.constexpr,
    COLUMNS: gl.constexpr,
) -> gl.tuple:
    """A ring for each pointer to rows, with the first blocks under way: see `fill`."""
    layout: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    rings = ()
    for _ in gl.static_range(len(rows)):
        ring = gl.allocate_shared_memory(gl.float32, [STAGES * TOKENS, COLUMNS], layout)
        rings += (ring,)  # type: ignore[assignment]  # it grows
    for block in gl.static_range(STAGES):
        fill(rings, rows, STRIDES, first, end, block, TOKENS)
    return rings


@gluon.jit
def fill(
    rings: gl.tuple,
    rows: gl.tuple,
    STRIDES: gl.constexpr,
    first: gl.tensor,
    end: gl.tensor,
    block: gl.tensor,
    TOKENS: gl.constexpr,
) -> None:
    """Begin to copy block `block` of the tokens from `first` to before `end`, of all rings.

    `rows` point at the rows of token 0, STRIDES floats apart. What a ring has of tokens at or
    beyond `end` is not theirs.
    """
    COLUMNS: gl.constexpr = rings[0].shape[1]
    STAGES: gl.constexpr = rings[0].shape[0] // TOKENS
    LAYOUT: gl.constexpr = _block_layout(COLUMNS, gl.num_warps())
    blocks: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [1, 0])
    start = first + block * TOKENS
    token = gl.arange(0, TOKENS, gl.SliceLayout(1, LAYOUT))[:, None]
    column = gl.arange(0, COLUMNS, gl.SliceLayout(0, LAYOUT))[None, :]
    column += gl.program_id(0) * COLUMNS
    for n in gl.static_range(len(rings)):
        ring = copies.viewed(rings[n], gl.float32, [STAGES, TOKENS, COLUMNS], blocks)
        source = rows[n] + start.to(gl.int64) * STRIDES[n] + (token * STRIDES[n] + column)
        mask = (start + token < end) & (column < STRIDES[n])
        copies.load(ring.index(block % STAGES), source, mask=mask)
    async_copy.commit_group()


@gluon.jit
def wait(BLOCKS: gl.constexpr) -> None:
    """Wait until all but the last BLOCKS that were filled are in the rings."""
    async_copy.wait_group(BLOCKS)
