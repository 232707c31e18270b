"""Reductions of a token's rows, in Gluon: in each warp, then once through shared memory.

A row is a block of at least 128 columns per warp in `row_layout`, a power of two. What is reduced
has the same sum, or the same maximum, in any order. A warp reduces an int32 of each thread in one
instruction, where Triton's own reductions of int64, and of several rows, take five steps.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl

from mmfree_compiler.backends.cuda.compile.kernels.reductions import (
    magnitude_bits,
    mean_of_squares,
    squares,
)

LANES = gl.constexpr(32)
ADJACENT = gl.constexpr(4)  # floats in a thread
# The sum of at most 32 squares in a thread has 51 bits: it is cut, so that the sums of a warp's
# halves fit into 31.
_MOST_SQUARES, _HALF = gl.constexpr(32), gl.constexpr(26)


@gluon.constexpr_function
def row_layout(warps: int) -> gl.BlockedLayout:
    """Four adjacent floats in a thread: loads of 16 bytes."""
    return gl.BlockedLayout([ADJACENT.value], [LANES.value], [warps], [0])


@gluon.jit
def most(rows: gl.tuple) -> gl.tuple:
    """The largest of each row of int32."""
    parts = ()
    for n in gl.static_range(len(rows)):
        threads = gl.max(gl.max(_threads(rows[n]), 3), 0)
        parts += (_shared(gl.max(threads, 1)),)  # type: ignore[assignment]  # it grows
    found = ()
    for n in gl.static_range(len(parts)):
        found += (gl.max(_loaded(parts[n]), 0),)  # type: ignore[assignment]  # it grows
    return found


@gluon.jit
def sums(rows: gl.tuple) -> gl.tuple:
    """The sum of each row of int32, or of reductions.squares."""
    parts = ()
    for n in gl.static_range(len(rows)):
        threads = gl.sum(gl.sum(_threads(rows[n]), 3), 0)
        parts += (_shared(_warp_sums(threads, rows[n].shape[0])),)  # type: ignore[assignment]  # it grows
    found = ()
    for n in gl.static_range(len(parts)):
        found += (gl.sum(_loaded(parts[n]), 0),)  # type: ignore[assignment]  # it grows
    return found


@gluon.jit
def mean_square(x: gl.tensor, K: gl.constexpr) -> gl.tensor:
    """reductions.mean_square."""
    peak = most((magnitude_bits(x),))[0]
    return mean_of_squares(sums((squares(x, peak),))[0], peak, K)


@gluon.jit
def _threads(row: gl.tensor) -> gl.tensor:
    """A row as what threads have of it: (blocks, warps, 32, 4)."""
    WARPS: gl.constexpr = gl.num_warps()
    BLOCKS: gl.constexpr = row.shape[0] // (WARPS * LANES * ADJACENT)
    return gl.reshape(row, [BLOCKS, WARPS, LANES, ADJACENT])


@gluon.jit
def _warp_sums(threads: gl.tensor, COLUMNS: gl.constexpr) -> gl.tensor:
    """The sums (warps,) of those of threads (warps, 32)."""
    MOST: gl.constexpr = _MOST_SQUARES * LANES * gl.num_warps()
    if threads.dtype == gl.int32 or MOST < COLUMNS:
        found = gl.sum(threads, 1)
    else:
        low = gl.sum((threads & ((1 << _HALF) - 1)).to(gl.int32), 1)
        high = gl.sum((threads >> _HALF).to(gl.int32), 1)
        found = (high.to(gl.int64) << _HALF) + low.to(gl.int64)
    return found


@gluon.jit
def _shared(of_warps: gl.tensor) -> gl.shared_memory_descriptor:
    layout: gl.constexpr = gl.SwizzledSharedLayout(1, 1, 1, [0])
    return gl.allocate_shared_memory(of_warps.dtype, of_warps.shape, layout, of_warps)


@gluon.jit
def _loaded(shared: gl.shared_memory_descriptor) -> gl.tensor:
    """All in each thread."""
    WARPS: gl.constexpr = gl.num_warps()
    return shared.load(gl.BlockedLayout([WARPS], [LANES], [WARPS], [0]))
