"""From logits to the next token: penalty, temperature, top-k, top-p, a draw. All deterministic."""

from __future__ import annotations

import math
from dataclasses import dataclass
from numbers import Integral, Real
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.errors import InputError

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]
Ids = NDArray[np.int64]

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
            if not isinstance(value, kind) or not low <= value <= high:
                raise InputError(name, f"{value!r} is out of range", f"Choose {low:g} to {high:g}")

    def distribution(self, logits: Floats, seen: NDArray[np.bool_]) -> tuple[Ids, Doubles]:
        """Ids (C,) ascending of the tokens that may be chosen, and their probabilities (C,).

        `logits` (V,) may hold -inf but no NaN or +inf, and not -inf alone: InputError. `seen` (V,)
        marks tokens that the repetition penalty applies to.
        """
        if not np.isfinite(logits.max()):
            raise InputError("logits", "hold NaN or infinity", "The model's weights may be damaged")
        scores = logits.astype(np.float64)
        if self.repetition_penalty != 1:
            factors = np.where(scores > 0, 1 / self.repetition_penalty, self.repetition_penalty)
            scores[seen] *= factors[seen]
        ids = _largest(scores, self.top_k if self.temperature else 1)
        with np.errstate(over="ignore"):  # a tiny temperature makes -inf of all but the largest
            weights = np.exp((scores[ids] - scores[ids].max()) / (self.temperature or 1.0))
        if self.top_p < 1:
            kept = _nucleus(weights, self.top_p)
            ids, weights = ids[kept], weights[kept]
        possible = weights > 0
        return ids[possible], weights[possible] / weights.sum()

    def sample(
        self, logits: Floats, seen: NDArray[np.bool_], random: np.random.Generator
    ) -> tuple[int, float]:
        """A token's id, and the natural logarithm of its probability under the plain logits.

        Draws one number from `random` unless greedy.
        """
        ids, probabilities = self.distribution(logits, seen)
        index = 0
        if self.temperature:
            bounds = probabilities.cumsum()
            index = int(bounds.searchsorted(random.random() * bounds[-1], "right"))
            index = min(index, len(ids) - 1)  # rounding may reach the last bound itself
        chosen = int(ids[index])
        return chosen, float(log_softmax(logits)[chosen])


def log_softmax(logits: Floats) -> Doubles:
    """Natural logarithms of the probabilities, in float64."""
    shifted = logits.astype(np.float64) - logits.max()
    return np.asarray(shifted - np.log(np.exp(shifted).sum()))


def _largest(scores: Doubles, k: int) -> Ids:
    """Ascending indices of the k largest, the lower of equals first; 0 is all."""
    if k == 1:
        return np.array([scores.argmax()])
    if k == 0 or k >= scores.size:
        return np.arange(scores.size)
    least = np.partition(scores, -k)[-k]
    above = np.flatnonzero(scores > least)
    equal = np.flatnonzero(scores == least)
    return np.sort(np.concatenate([above, equal[: k - above.size]]))


def _nucleus(weights: Doubles, top_p: float) -> Ids:
    """Ascending indices of the fewest largest whose sum reaches `top_p` of the whole."""
    order = np.argsort(-weights, kind="stable")
    sums = weights[order].cumsum()
    return np.sort(order[: sums.searchsorted(top_p * sums[-1]) + 1])
