"""From logits to the next token: penalty, top-k, temperature, top-p, a draw.

docs/arithmetic.md, "Sampling", has the steps. Each is exact or rounded once, so that equal logits
give equal tokens on every machine.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler import elementary as e
from mmfree_compiler.backends.decoding import log_probability
from mmfree_compiler.backends.exp import exp
from mmfree_compiler.errors import InputError
from mmfree_compiler.runtime.drawing import Weights, draw, nucleus, total
from mmfree_compiler.runtime.philox import random_bits
from mmfree_compiler.runtime.sampling import Sampling

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ids = NDArray[np.int64]
Flags = NDArray[np.bool_]

_LIKELIEST, _LEAST = np.float32(e.LIKELIEST), np.float32(e.LEAST_RELATIVE)
_LOWEST_TEMPERATURE = 1e-30  # below it, fp32 quotients of equal logits would be 0 / 0
_HUGE, _HEADROOM = np.float32(e.HUGE_LOGIT), np.float32(e.HEADROOM)


def distribution(logits: Floats, seen: Flags, sampling: Sampling) -> tuple[Ids, Doubles]:
    """Ids (C,) ascending of the tokens that may be chosen, and their probabilities (C,).

    `logits` (V,) may contain -inf, but not only -inf, and neither NaN nor +inf: InputError. `seen`
    (V,) marks the tokens that the repetition penalty applies to.
    """
    top, weights = _candidates(logits, seen, sampling)
    kept = np.flatnonzero(weights)
    return kept if top is None else top[kept], weights[kept] / total(weights)


def sample(
    logits: Floats, seen: Flags, sampling: Sampling, seed: int, position: int
) -> tuple[int, float]:
    """A token's id, and the natural logarithm of its probability under the plain logits.

    `position` is that of the token in its sequence; both it and `seed` are below 2^64. The other
    arguments and the errors are `distribution`'s.
    """
    top, weights = _candidates(logits, seen, sampling)
    index = draw(weights, random_bits(seed, position)) if weights.size > 1 else 0
    chosen = index if top is None else int(top[index])
    return chosen, log_probability(logits, chosen)


def _candidates(logits: Floats, seen: Flags, sampling: Sampling) -> tuple[Ids | None, Weights]:
    """Ids of the tokens to choose from, None for all, and their weights, some of which may be 0."""
    check_largest(logits.max())
    scores = _penalized(logits, seen, np.float32(sampling.repetition_penalty))
    if not sampling.temperature:
        return np.array([scores.argmax()]), np.ones(1, np.int32)
    top = _largest(scores, sampling.top_k)
    weights = _weights(scores if top is None else scores[top], divisor(sampling.temperature))
    return top, nucleus(weights, sampling.top_p)


def check_largest(peak: np.float32) -> None:
    """Raise InputError unless some token can be chosen from logits with this largest one."""
    if np.isfinite(peak):
        return
    hold = "are all -inf" if peak < 0 else "contain NaN or infinity"
    raise InputError("logits", hold, "Start from another state, or check the weights")


def _penalized(logits: Floats, seen: Flags, penalty: np.float32) -> Floats:
    """Logits after the penalty; huge ones times `_HEADROOM`, which changes no choice."""
    if penalty == 1:
        return logits
    huge = abs(logits.max()) > _HUGE
    scores = logits * _HEADROOM if huge else logits.copy()
    read = scores[seen]
    with np.errstate(over="ignore"):  # to -inf, of logits far below the largest
        scores[seen] = np.where(read > 0, read / penalty, read * penalty)
    return scores


def _largest(scores: Floats, k: int) -> Ids | None:
    """Ascending indices of the k largest scores, lower ones first among equals; None for all."""
    if k == 0 or k >= scores.size:
        return None
    least = np.partition(scores, -k)[-k]
    above, equal = np.flatnonzero(scores > least), np.flatnonzero(scores == least)
    return np.sort(np.concatenate([above, equal[: k - above.size]]))


def divisor(temperature: float) -> np.float32:
    """What a temperature above 0 divides logits by."""
    return np.float32(max(temperature, _LOWEST_TEMPERATURE))


def _weights(scores: Floats, divisor: np.float32) -> Weights:
    """`round(2^30 * e^s)` of `s = (score - largest score) / divisor`."""
    with np.errstate(over="ignore"):  # to -inf: huge logits, or a tiny temperature
        relative = scores - scores.max()
        relative /= divisor
    counts = relative >= _LEAST
    weights = np.zeros(scores.size, np.int32)
    weights[counts] = np.rint(exp(relative[counts]) * _LIKELIEST)
    return weights
