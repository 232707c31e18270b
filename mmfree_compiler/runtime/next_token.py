"""From logits to the next token: penalty, top-k, temperature, top-p, a draw. Deterministic."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.errors import InputError
from mmfree_compiler.runtime.sampling import Sampling

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ids = NDArray[np.int64]
Flags = NDArray[np.bool_]

_LOWEST_TEMPERATURE = 1e-30  # below it, fp32 quotients of equal logits would be 0 / 0
# A penalty of up to 1000 could make infinity of a logit above the first. Scaled by the second it
# cannot, and nothing else changes: differing logits of this size differ by far more than the 104
# times the highest temperature that fp32 probabilities can tell apart.
_HUGE, _HEADROOM = np.float32(1e30), np.float32(2.0**-10)
_BLOCK = 256  # weights; a draw finds the right block before the right weight in it


def distribution(logits: Floats, seen: Flags, sampling: Sampling) -> tuple[Ids, Doubles]:
    """Ids (C,) ascending of the tokens that may be chosen, and their probabilities (C,).

    `logits` (V,) may contain -inf, but not only -inf, and neither NaN nor +inf: InputError. `seen`
    (V,) marks the tokens that the repetition penalty applies to.
    """
    ids, weights = _weights(logits, seen, sampling)
    return ids, weights / weights.sum(dtype=np.float64)


def sample(
    logits: Floats, seen: Flags, sampling: Sampling, random: np.random.Generator
) -> tuple[int, float]:
    """A token's id, and the natural logarithm of its probability under the plain logits.

    Draws one number from `random` unless greedy. Arguments and errors are `distribution`'s.
    """
    ids, weights = _weights(logits, seen, sampling)
    index = _draw(weights, random.random()) if sampling.temperature else 0
    chosen = int(ids[index])
    return chosen, log_probability(logits, chosen)


def _weights(logits: Floats, seen: Flags, sampling: Sampling) -> tuple[Ids, Floats]:
    """Ids of the tokens that may be chosen, and weights in proportion to their probabilities.

    Uses fp32 and few copies: a float64 array over the vocabulary is so large that its memory goes
    back to the system and comes again page by page, for every token.
    """
    _check(logits)
    scores = _penalized(logits, seen, sampling.repetition_penalty)
    top = _largest(scores, sampling.top_k if sampling.temperature else 1)
    if top is not None:
        scores = scores[top]
    with np.errstate(over="ignore"):  # to -inf: huge logits, or a tiny temperature
        weights = scores - scores.max()
        weights /= max(sampling.temperature, _LOWEST_TEMPERATURE)
    np.exp(weights, out=weights)
    kept = np.flatnonzero(weights) if sampling.top_p == 1 else _nucleus(weights, sampling.top_p)
    return kept if top is None else top[kept], weights[kept]


def _check(logits: Floats) -> None:
    """Raise InputError unless some token can be chosen."""
    peak = logits.max()
    if np.isfinite(peak):
        return
    hold = "are all -inf" if peak < 0 else "contain NaN or infinity"
    raise InputError("logits", hold, "Start from another state, or check the weights")


def _penalized(logits: Floats, seen: Flags, penalty: float) -> Floats:
    """Logits after the penalty; huge ones times `_HEADROOM`, which changes no choice."""
    if penalty == 1:
        return logits
    huge = max(logits.max(), -logits.max()) > _HUGE
    scores = logits * _HEADROOM if huge else logits.copy()
    with np.errstate(over="ignore"):  # to -inf, of logits far below the largest
        scores[seen] *= np.where(scores[seen] > 0, 1 / penalty, penalty).astype(np.float32)
    return scores


def log_probability(logits: Floats, token: int) -> float:
    """Natural logarithm of a token's probability under softmax, to 1e-6."""
    peak = logits.max()
    with np.errstate(over="ignore"):  # to -inf
        total = np.exp(logits - peak).sum(dtype=np.float64)
    return float(logits[token]) - float(peak) - math.log(total)


def _largest(scores: Floats, k: int) -> Ids | None:
    """Ascending indices of the k largest scores, lower ones first among equals; None for all."""
    if k == 1:
        return np.array([scores.argmax()])
    if k == 0 or k >= scores.size:
        return None
    return _at_least(np.partition(scores, -k)[-k], scores, k)


def _draw(weights: Floats, at: float) -> int:
    """The index at which the running sum of `weights`, all positive, exceeds `at` of their total.

    `at` is from 0 to 1. Sums of blocks find the one block that is summed term by term.
    """
    starts = np.arange(0, weights.size, _BLOCK)
    ends = np.add.reduceat(weights, starts, dtype=np.float64).cumsum()
    wanted = at * ends[-1]
    block = min(int(ends.searchsorted(wanted, "right")), ends.size - 1)
    terms = weights[starts[block] : starts[block] + _BLOCK].astype(np.float64)
    sums = terms.cumsum() + (ends[block - 1] if block else 0.0)
    return int(starts[block]) + min(int(sums.searchsorted(wanted, "right")), sums.size - 1)


# Fractions of the largest weight. If the weights above a cut sum to enough, only they are sorted.
_CUTS = (2.0**-8, 2.0**-16)


def _nucleus(weights: Floats, top_p: float) -> Ids:
    """Ascending indices of the fewest largest weights whose sum reaches `top_p` of the total.

    The largest weight is 1.
    """
    wanted = top_p * weights.sum(dtype=np.float64)
    parts = (weights[weights >= cut] for cut in _CUTS)
    large = next((part for part in parts if part.sum(dtype=np.float64) >= wanted), weights)
    ranked = np.sort(large)[::-1]
    sums = ranked.astype(np.float64).cumsum()
    count = min(int(sums.searchsorted(wanted)) + 1, ranked.size)
    return _at_least(ranked[count - 1], weights, count)


def _at_least(least: np.float32, scores: Floats, count: int) -> Ids:
    """Ascending indices of the `count` largest scores, down to `least`, lower ones among equals."""
    above, equal = np.flatnonzero(scores > least), np.flatnonzero(scores == least)
    return np.sort(np.concatenate([above, equal[: count - above.size]]))
