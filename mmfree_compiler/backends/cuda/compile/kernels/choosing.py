"""Choosing the next token of a lane: docs/arithmetic.md, "Sampling", with the same bits.

Three kernels call this, with pointers to the fields of one lane's records (lanes.py). `survey` and
`weigh` are for a block of the vocabulary, `choose` for a lane. V is the size of the vocabulary,
BLOCKS the number of blocks, PARTS the power of two from it on.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mmfree_compiler import elementary as e
from mmfree_compiler.backends.cuda import lanes
from mmfree_compiler.backends.cuda.compile.kernels import selecting
from mmfree_compiler.backends.cuda.compile.kernels.fp32 import nearest_magnitude
from mmfree_compiler.backends.cuda.compile.kernels.functions import exp

_LIKELIEST, _LEAST = tl.constexpr(float(e.LIKELIEST)), tl.constexpr(e.LEAST_RELATIVE)
_SHARES = tl.constexpr(e.SHARES)
_HUGE, _HEADROOM = tl.constexpr(e.HUGE_LOGIT), tl.constexpr(e.HEADROOM)
_NEVER = tl.constexpr(float("-inf"))
_WHOLE = tl.constexpr(2.0**23)  # fp32 numbers from here on are integers
BLOCK = tl.constexpr(lanes.BLOCK)
RING = tl.constexpr(lanes.RING)
DRAWN = tl.constexpr(lanes.DRAWN.itemsize)
# Of a lane's program, which reads the vocabulary several times.
LANE_BLOCK = tl.constexpr(4096)


@triton.jit
def survey(
    logits: tl.tensor,
    penalty: tl.tensor,
    seen: tl.tensor,
    peaks: tl.tensor,
    totals: tl.tensor,
    bests: tl.tensor,
    places: tl.tensor,
    bins: tl.tensor,
    V: tl.constexpr,
    BLOCKS: tl.constexpr,
) -> None:
    """Peaks, totals and the largest scores of a block, with logits as they are and scaled."""
    block = tl.program_id(0)
    column = block * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(logits + column, mask=column < V, other=_NEVER)
    peak = _peak(x)
    tl.store(peaks + block, peak)
    tl.store(totals + block, tl.sum(exp(x - tl.where(peak > _NEVER, peak, 0.0)).to(tl.float64), 0))
    flags, rate = _flags(seen, column, V), tl.load(penalty)
    for k in tl.static_range(2):
        score = _penalized(x * (_HEADROOM if k else 1.0), flags, rate)
        best = tl.max(score, 0)
        tl.store(bests + k * BLOCKS + block, best)
        tl.store(places + k * BLOCKS + block, tl.min(tl.where(score == best, column, V), 0))
    if block == 0:
        selecting.clear(bins)


@triton.jit
def weigh(
    logits: tl.tensor,
    temperature: tl.tensor,
    penalty: tl.tensor,
    top_k: tl.tensor,
    share: tl.tensor,
    seen: tl.tensor,
    peaks: tl.tensor,
    bests: tl.tensor,
    bins: tl.tensor,
    sums: tl.tensor,
    keys: tl.tensor,
    weights: tl.tensor,
    V: tl.constexpr,
    BLOCKS: tl.constexpr,
    PARTS: tl.constexpr,
) -> None:
    """The weights of a block, unless the lane is greedy, and the first round of a selection."""
    heat = tl.load(temperature)
    if heat > 0.0:
        block, part = tl.program_id(0), tl.arange(0, PARTS)
        column = block * BLOCK + tl.arange(0, BLOCK)
        rate = tl.load(penalty)
        scaled = _is_scaled(_peak(tl.load(peaks + part, mask=part < BLOCKS, other=_NEVER)), rate)
        at = scaled.to(tl.int32) * BLOCKS + part
        best = tl.max(tl.load(bests + at, mask=part < BLOCKS, other=_NEVER), 0)
        x = tl.load(logits + column, mask=column < V, other=_NEVER)
        x *= tl.where(scaled, _HEADROOM, 1.0)
        score = _penalized(x, _flags(seen, column, V), rate)
        weight, key = _weight(tl.div_rn(score - best, heat)), selecting.score_key(score)
        tl.store(weights + column, weight, mask=column < V)
        tl.store(keys + column, key.to(tl.int32, bitcast=True), mask=column < V)
        tl.store(sums + block, tl.sum(weight.to(tl.int64), 0))
        if tl.load(top_k) > 0:
            selecting.count_first(bins, key, (column < V).to(tl.int64))
        elif tl.load(share) < _SHARES:
            selecting.count_first(bins, selecting.weight_key(weight), weight.to(tl.int64))


@triton.jit
def choose(
    logits: tl.tensor,
    seed: tl.tensor,
    position: tl.tensor,
    temperature: tl.tensor,
    penalty: tl.tensor,
    top_k: tl.tensor,
    share: tl.tensor,
    step: tl.tensor,
    rows: tl.tensor,
    seen: tl.tensor,
    peaks: tl.tensor,
    totals: tl.tensor,
    bests: tl.tensor,
    places: tl.tensor,
    bins: tl.tensor,
    sums: tl.tensor,
    keys: tl.tensor,
    weights: tl.tensor,
    ids: tl.tensor,
    slots: tl.tensor,
    targets: tl.tensor,
    drawn_total: tl.tensor,
    drawn_id: tl.tensor,
    drawn_logit: tl.tensor,
    drawn_peak: tl.tensor,
    V: tl.constexpr,
    BLOCKS: tl.constexpr,
    PARTS: tl.constexpr,
) -> None:
    """Choose the token, tell the host, and make everything ready for the next step."""
    part = tl.arange(0, PARTS)
    there = part < BLOCKS
    every = tl.load(peaks + part, mask=there, other=_NEVER)
    peak = _peak(every)
    sound = tl.abs(peak) < float("inf")
    total = tl.load(totals + part, mask=there, other=0.0) * exp(every - peak).to(tl.float64)
    at = _is_scaled(peak, tl.load(penalty)).to(tl.int32) * BLOCKS + part
    scores = tl.load(bests + at, mask=there, other=_NEVER)
    found = tl.load(places + at, mask=there, other=V)
    chosen = tl.min(tl.where(scores == tl.max(scores, 0), found, V), 0)
    now = tl.load(step)
    after = tl.load(position) + 1  # where the chosen token stands
    if sound & (tl.load(temperature) > 0.0):
        everything = tl.sum(tl.load(sums + part, mask=there, other=0), 0)
        least = tl.cast(0, tl.int32)
        spare = tl.cast(0, tl.int32)
        k, part_of_all = tl.load(top_k), tl.load(share)
        if k > 0:
            key, above = selecting.select(bins, keys, weights, k, 1, V, LANE_BLOCK, True)
            everything = selecting.largest(
                keys, weights, key, (k - above).to(tl.int32), V, LANE_BLOCK
            )
        if part_of_all < _SHARES:
            wanted = tl.maximum(1, (everything * part_of_all + (_SHARES - 1)) // _SHARES)
            counted = (k == 0).to(tl.int32)
            key, above = selecting.select(
                bins, keys, weights, wanted, counted, V, LANE_BLOCK, False
            )
            least = key.to(tl.float32, bitcast=True).to(tl.int32)
            spare = ((wanted - above + least - 1) // least).to(tl.int32)
            everything = above + spare.to(tl.int64) * least
        drawn = tl.umulhi(_random_bits(tl.load(seed), after), everything.to(tl.uint64))
        chosen = selecting.reach(weights, drawn.to(tl.int64) + 1, least, spare, V, LANE_BLOCK)
    # A lane whose logits are damaged goes on with some token, until the host reads of it.
    chosen = tl.where(sound, chosen, 0)
    # Every warp has read what now changes.
    tl.debug_barrier()
    place = now % RING
    tl.store(drawn_total + place * (DRAWN // 8), tl.sum(total, 0))
    tl.store(drawn_id + place * (DRAWN // 4), chosen)
    tl.store(drawn_logit + place * (DRAWN // 4), tl.load(logits + chosen))
    tl.store(drawn_peak + place * (DRAWN // 4), peak)
    tl.store(ids, chosen.to(tl.int64))
    tl.store(position, after)
    tl.store(step, now + 1)
    tl.store(slots, tl.load(rows + (now + 1) % RING))
    tl.store(targets, tl.load(rows + (now + 2) % RING))
    word = seen + chosen // 32
    tl.store(word, tl.load(word) | (tl.cast(1, tl.int32) << chosen % 32))


@triton.jit
def _peak(x: tl.tensor) -> tl.tensor:
    """The largest of a block; NaN if there is one."""
    has_nan = tl.max((x != x).to(tl.int32), 0) > 0
    return tl.where(has_nan, float("nan"), tl.max(x, 0))


@triton.jit
def _is_scaled(peak: tl.tensor, penalty: tl.tensor) -> tl.tensor:
    return (penalty != 1.0) & (tl.abs(peak) > _HUGE)


@triton.jit
def _flags(seen: tl.tensor, column: tl.tensor, V: tl.constexpr) -> tl.tensor:
    """Whether the penalty applies to each token."""
    words = tl.load(seen + column // 32, mask=column < V, other=0)
    return (words >> column % 32 & 1) > 0


@triton.jit
def _penalized(x: tl.tensor, seen: tl.tensor, penalty: tl.tensor) -> tl.tensor:
    return tl.where(seen, tl.where(x > 0.0, tl.div_rn(x, penalty), x * penalty), x)


@triton.jit
def _weight(relative: tl.tensor) -> tl.tensor:
    """`round(LIKELIEST * e^relative)`, half to even."""
    exact = exp(relative) * _LIKELIEST
    whole = tl.where(exact < _WHOLE, nearest_magnitude(exact), exact.to(tl.int32))
    return tl.where(relative >= _LEAST, whole, 0)


@triton.jit
def _random_bits(seed: tl.tensor, position: tl.tensor) -> tl.tensor:
    """The uint64 of a position: see runtime/philox.py."""
    low, high = position.to(tl.uint32), (position >> 32).to(tl.uint32)
    zero = tl.cast(0, tl.uint32)
    first, second, _, _ = tl.philox(seed, low, high, zero, zero)
    return second.to(tl.uint64) << 32 | first.to(tl.uint64)
