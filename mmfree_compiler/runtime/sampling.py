"""From logits to the next token: penalty, temperature, top-k, top-p, a draw. All deterministic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.errors import InputError
from mmfree_compiler.wording import bounds

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ids = NDArray[np.int64]

_COLDEST = 1e-30  # temperature: below it fp32 quotients of equal logits would be 0 / 0
_RUN = 256  # weights that are summed before a draw looks at each

_KINDS: dict[Any, str] = {Real: "number", Integral: "whole number"}
_RANGES: tuple[tuple[str, Any, float, float], ...] = (
    ("temperature", Real, 0, 1e6),
    ("top_k", Integral, 0, math.inf),
    ("top_p", Real, math.ulp(0.0), 1),
    ("repetition_penalty", Real, 1e-3, 1e3),
)


@dataclass(frozen=True)
class Sampler:
    """How a token is chosen; the fields are applied in this order. Raises InputError.

    repetition_penalty: logits of tokens seen before are divided by it when positive, multiplied
    when negative (Keskar et al. 2019, CTRL); from 0.001 to 1000, 1 is none.
    top_k: only the k likeliest tokens, lower ids first among equals; 0 is all.
    temperature: logits are divided by it; 0 is greedy: the likeliest, the lowest id of equals.
    top_p: of these, the fewest tokens whose probabilities sum to it (Holtzman et al. 2020).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    repetition_penalty: float = 1.0

    def __post_init__(self) -> None:
        for name, kind, low, high in _RANGES:
            value = getattr(self, name)
            if not isinstance(value, kind):
                raise _refusal(name, f"{value!r} is no {_KINDS[kind]}", low, high)
            if not low <= value <= high:
                raise _refusal(name, f"{value!r} is out of range", low, high)

    def distribution(self, logits: Floats, seen: NDArray[np.bool_]) -> tuple[Ids, Doubles]:
        """Ids (C,) ascending of the tokens that may be chosen, and their probabilities (C,).

        `logits` (V,) may hold -inf but no NaN or +inf, and not -inf alone: InputError. `seen` (V,)
        marks tokens that the repetition penalty applies to.
        """
        ids, weights = self._weights(logits, seen)
        return ids, weights / weights.sum(dtype=np.float64)

    def sample(
        self, logits: Floats, seen: NDArray[np.bool_], random: np.random.Generator
    ) -> tuple[int, float]:
        """A token's id, and the natural logarithm of its probability under the plain logits.

        Draws one number from `random` unless greedy.
        """
        ids, weights = self._weights(logits, seen)
        chosen = int(ids[_draw(weights, random.random()) if self.temperature else 0])
        return chosen, log_probability(logits, chosen)

    def _weights(self, logits: Floats, seen: NDArray[np.bool_]) -> tuple[Ids, Floats]:
        """Ids of the tokens that may be chosen, and what their probabilities are in proportion to.

        In fp32, and without copies of what is not narrowed down: a vocabulary of doubles is large
        enough that the system takes its memory back, and gives it page by page, at every token.
        """
        if not np.isfinite(logits.max()):
            raise InputError("logits", "hold NaN or infinity", "The model's weights may be damaged")
        scores = self._penalized(logits, seen) if self.repetition_penalty != 1 else logits
        some = _largest(scores, self.top_k if self.temperature else 1)
        scores = scores if some is None else scores[some]
        weights = scores - scores.max()
        with np.errstate(over="ignore"):  # a tiny temperature makes -inf of all but the largest
            weights /= max(self.temperature, _COLDEST)
        np.exp(weights, out=weights)
        kept = np.flatnonzero(weights) if self.top_p == 1 else _nucleus(weights, self.top_p)
        return kept if some is None else some[kept], weights[kept]

    def _penalized(self, logits: Floats, seen: NDArray[np.bool_]) -> Floats:
        scores, penalty = logits.copy(), self.repetition_penalty
        scores[seen] *= np.where(scores[seen] > 0, 1 / penalty, penalty).astype(np.float32)
        return scores


def _refusal(name: str, cause: str, low: float, high: float) -> InputError:
    return InputError(name, cause, f"Choose {bounds(low, high)}")


def log_probability(logits: Floats, token: int) -> float:
    """Natural logarithm of a token's probability under softmax, to 1e-6."""
    peak = logits.max()
    total = np.exp(logits - peak).sum(dtype=np.float64)
    return float(logits[token]) - float(peak) - math.log(total)


def _largest(scores: Floats, k: int) -> Ids | None:
    """Ascending indices of the k largest, the lower of equals first; None when that is all."""
    if k == 1:
        return np.array([scores.argmax()])
    if k == 0 or k >= scores.size:
        return None
    return _down_to(scores, np.partition(scores, -k)[-k], k)


def _draw(weights: Floats, at: float) -> int:
    """The index where the sum of `weights`, all positive, first exceeds `at`, 0 to 1, of its end.

    Sums of runs lead to the one run that is summed term by term.
    """
    starts = np.arange(0, weights.size, _RUN)
    ends = np.add.reduceat(weights, starts, dtype=np.float64).cumsum()
    wanted = at * ends[-1]
    run = min(int(ends.searchsorted(wanted, "right")), ends.size - 1)
    terms = weights[starts[run] : starts[run] + _RUN].astype(np.float64)
    sums = terms.cumsum() + (ends[run - 1] if run else 0.0)
    return int(starts[run]) + min(int(sums.searchsorted(wanted, "right")), sums.size - 1)


# Weights relative to the largest: sorting those above a cut will do when they sum to enough.
_CUTS = (2.0**-8, 2.0**-16)


def _nucleus(weights: Floats, top_p: float) -> Ids:
    """Ascending indices of the fewest largest whose sum reaches `top_p` of the whole.

    The largest weight is 1.
    """
    wanted = top_p * weights.sum(dtype=np.float64)
    parts = (weights[weights >= cut] for cut in _CUTS)
    large = next((part for part in parts if part.sum(dtype=np.float64) >= wanted), weights)
    ranked = np.sort(large)[::-1]
    sums = ranked.astype(np.float64).cumsum()
    count = min(int(sums.searchsorted(wanted)) + 1, ranked.size)
    return _down_to(weights, ranked[count - 1], count)


def _down_to(scores: Floats, least: np.float32, count: int) -> Ids:
    """Ascending indices of `count` scores from the largest to `least`, the lower of equals."""
    above, equal = np.flatnonzero(scores > least), np.flatnonzero(scores == least)
    return np.sort(np.concatenate([above, equal[: count - above.size]]))
