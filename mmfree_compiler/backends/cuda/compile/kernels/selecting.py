"""Selecting among many: the largest keys that sum to something, and a draw. Exact integers.

A selection goes through the bits of keys, RADIX_BITS in a round, the highest first: it sums the
amounts of keys by these bits in `bins`, and goes on with those in the bin where the sum of the
largest keys reaches what is wanted. A program may do this alone, in blocks of BLOCK; `bins` and
`weights` are in the device's memory.
"""

from __future__ import annotations

from itertools import pairwise

import triton
import triton.language as tl

from mmfree_compiler.backends.cuda import lanes
from mmfree_compiler.backends.cuda.compile.kernels.fp32 import SIGN_BIT, bits

_BINS = tl.constexpr(lanes.BINS)
# Of each round: the bits below those that it looks at, and how many these are.
_ENDS = [max(0, end) for end in range(32, -lanes.RADIX_BITS, -lanes.RADIX_BITS)]
_ROUNDS = tl.constexpr(len(_ENDS) - 1)
_SHIFTS = tl.constexpr(tuple(_ENDS[1:]))
_WIDTHS = tl.constexpr(tuple(high - low for high, low in pairwise(_ENDS)))


@triton.jit
def score_key(score: tl.tensor) -> tl.tensor:
    """uint32 in the order of fp32 scores, with +0 equal to -0."""
    pattern = bits(tl.where(score == 0.0, 0.0, score))
    return (pattern ^ ((pattern >> 31) | SIGN_BIT)).to(tl.uint32, bitcast=True)


@triton.jit
def weight_key(weight: tl.tensor) -> tl.tensor:
    """uint32 in the order of weights, int32 that fp32 has too: their logarithms spread evenly."""
    return weight.to(tl.float32).to(tl.uint32, bitcast=True)


@triton.jit
def clear(bins: tl.tensor) -> None:
    """Set all bins to 0."""
    tl.store(bins + tl.arange(0, _BINS), tl.zeros([_BINS], tl.int64))


@triton.jit
def count_first(bins: tl.tensor, key: tl.tensor, amount: tl.tensor) -> None:
    """Add int64 amounts to the bins of the first round."""
    at = (key >> _SHIFTS[0]).to(tl.int32)
    tl.atomic_add(bins + at, amount, mask=amount > 0, sem="relaxed")


@triton.jit
def select(
    bins: tl.tensor,
    keys: tl.tensor,
    weights: tl.tensor,
    wanted: tl.tensor,
    counted: tl.tensor,
    V: tl.constexpr,
    BLOCK: tl.constexpr,
    KEYS: tl.constexpr,
) -> tuple[tl.tensor, tl.tensor]:
    """The key down to which the largest of V sum to at least `wanted`; the sum of those above it.

    KEYS: each of `keys` counts 1. Otherwise keys are those of `weights`, and each counts its
    weight. `counted`: the bins have the sums of the first round.
    """
    key = tl.cast(0, tl.uint32)
    above = tl.cast(0, tl.int64)
    for k in tl.static_range(_ROUNDS):
        if (counted == 0) | (k > 0):
            _count(bins, keys, weights, key, _SHIFTS[k], _WIDTHS[k], V, BLOCK, KEYS)
        sums = tl.load(bins + tl.arange(0, _BINS))
        down = above + tl.sum(sums, 0) - tl.cumsum(sums, 0)  # of the keys above each bin
        at = tl.sum((down + sums >= wanted).to(tl.int32), 0) - 1
        above = tl.sum(tl.where(tl.arange(0, _BINS) == at, down, 0), 0)
        key = (key << _WIDTHS[k]) | at.to(tl.uint32, bitcast=True)
        tl.debug_barrier()
    return key, above


@triton.jit
def _count(
    bins: tl.tensor,
    keys: tl.tensor,
    weights: tl.tensor,
    chosen: tl.tensor,
    SHIFT: tl.constexpr,
    WIDTH: tl.constexpr,
    V: tl.constexpr,
    BLOCK: tl.constexpr,
    KEYS: tl.constexpr,
) -> None:
    """One round: WIDTH bits above the lowest SHIFT, of keys whose bits above these are `chosen`."""
    clear(bins)
    tl.debug_barrier()
    for first in range(0, V, BLOCK):
        column = first + tl.arange(0, BLOCK)
        if KEYS:
            key = tl.load(keys + column, mask=column < V, other=0).to(tl.uint32, bitcast=True)
            amount = (column < V).to(tl.int64)
        else:
            weight = tl.load(weights + column, mask=column < V, other=0)
            key, amount = weight_key(weight), weight.to(tl.int64)
        # In two steps: a shift by 32 bits would not be one.
        above = key >> SHIFT >> (WIDTH - 1) >> 1
        at = ((key >> SHIFT) - (above << (WIDTH - 1) << 1)).to(tl.int32)
        tl.atomic_add(bins + at, amount, mask=(above == chosen) & (amount > 0), sem="relaxed")
    tl.debug_barrier()


@triton.jit
def largest(
    keys: tl.tensor,
    weights: tl.tensor,
    least: tl.tensor,
    spare: tl.tensor,
    V: tl.constexpr,
    BLOCK: tl.constexpr,
) -> tl.tensor:
    """The sum of the weights with keys above `least`, and of the first `spare` with this key.

    All other weights are set to 0.
    """
    total = tl.cast(0, tl.int64)
    equals = tl.cast(0, tl.int32)
    for first in range(0, V, BLOCK):
        column = first + tl.arange(0, BLOCK)
        key = tl.load(keys + column, mask=column < V, other=0).to(tl.uint32, bitcast=True)
        equal = ((key == least) & (column < V)).to(tl.int32)
        rank = equals + tl.cumsum(equal, 0)
        kept = (key > least) | ((equal > 0) & (rank <= spare))
        weight = tl.load(weights + column, mask=(column < V) & kept, other=0)
        tl.store(weights + column, weight, mask=column < V)
        total += tl.sum(weight.to(tl.int64), 0)
        equals += tl.sum(equal, 0)
    tl.debug_barrier()
    return total


@triton.jit
def reach(
    weights: tl.tensor,
    wanted: tl.tensor,
    least: tl.tensor,
    spare: tl.tensor,
    V: tl.constexpr,
    BLOCK: tl.constexpr,
) -> tl.tensor:
    """Where the running sum of weights is first at least `wanted`.

    Only weights above `least` count, and the first `spare` that are equal to it.
    """
    index = tl.cast(0, tl.int32)
    equals = tl.cast(0, tl.int32)
    total = tl.cast(0, tl.int64)
    for first in range(0, V, BLOCK):
        column = first + tl.arange(0, BLOCK)
        weight = tl.load(weights + column, mask=column < V, other=0)
        equal = (weight == least).to(tl.int32)
        rank = equals + tl.cumsum(equal, 0)
        kept = (weight > least) | ((equal > 0) & (rank <= spare))
        counted = tl.where(kept, weight, 0).to(tl.int64)
        index += tl.sum((total + tl.cumsum(counted, 0) < wanted).to(tl.int32), 0)
        total += tl.sum(counted, 0)
        equals += tl.sum(equal, 0)
    return index
