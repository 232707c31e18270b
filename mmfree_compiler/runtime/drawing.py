"""Choosing among integer weights: top-p and a draw, in exact integer arithmetic."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.elementary import SHARES

# From 0 to 2^30; their sums are int64. Arrays of int64 over a vocabulary are avoided: they are so
# large that their memory goes back to the system and comes again page by page, for every token.
Weights = NDArray[np.int32]

# If the weights down to a cut sum to enough for top-p, only they are sorted.
_CUTS = (2**22, 2**14)
_BLOCK = 256  # weights; a search finds the right block before the right weight in it


def total(weights: Weights) -> int:
    return int(weights.sum(dtype=np.int64))


def share(top_p: float) -> int:
    """`top_p` in steps of 2^-15."""
    return round(top_p * SHARES)


def draw(weights: Weights, bits: int) -> int:
    """The index at which the running sum first exceeds `bits / 2^64` of the total, rounded down."""
    return _reach(weights, (bits * total(weights) >> 64) + 1)


def nucleus(weights: Weights, top_p: float) -> Weights:
    """The fewest largest weights, and at least one, that sum to `top_p` of the total; others are 0.

    `top_p` is rounded to a multiple of 2^-15. Among equals the first ones stay.
    """
    wanted_share = share(top_p)
    if wanted_share == SHARES:
        return weights
    wanted = max(1, -(-wanted_share * total(weights) // SHARES))  # rounded up
    parts = (weights[weights >= cut] for cut in _CUTS)
    large = next((part for part in parts if total(part) >= wanted), weights)
    ranked = np.sort(large)[::-1]
    count = _reach(ranked, wanted) + 1
    return _first_largest(weights, ranked[count - 1], count)


def _first_largest(weights: Weights, least: np.int32, count: int) -> Weights:
    """The `count` largest weights, down to `least`, the first ones among equals; others are 0."""
    kept = weights * (weights >= least)
    equal = np.flatnonzero(weights == least)
    kept[equal[count - np.count_nonzero(weights > least) :]] = 0
    return kept


def _reach(weights: Weights, wanted: int) -> int:
    """The index at which the running sum is first at least `wanted`, which the total is.

    Sums of blocks find the one block that is summed term by term.
    """
    starts = np.arange(0, weights.size, _BLOCK)
    ends = np.add.reduceat(weights, starts, dtype=np.int64).cumsum()
    block = int(ends.searchsorted(wanted))
    start = int(starts[block])
    sums = weights[start : start + _BLOCK].cumsum(dtype=np.int64)
    before = int(ends[block] - sums[-1])
    return start + int(sums.searchsorted(wanted - before))
