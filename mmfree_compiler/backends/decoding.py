"""The interface of launchers that choose tokens themselves, so that decoding stays on a device."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.backends.interface import Batch, Indices, Launcher, States


@dataclass(frozen=True)
class Choices:
    """How the next tokens of N sequences are chosen: docs/arithmetic.md, "Sampling".

    `divisors` (N,) float32 are the temperatures, 0 is greedy; `penalties` (N,) float32; `top_k`
    (N,) int32, 0 keeps all tokens; `shares` (N,) int32 are top-p in steps of 2^-15; `seeds` (N,)
    uint64. `seen` (N, V) bool marks the tokens that the penalty applies to.
    """

    divisors: NDArray[np.float32]
    penalties: NDArray[np.float32]
    top_k: NDArray[np.int32]
    shares: NDArray[np.int32]
    seeds: NDArray[np.uint64]
    seen: NDArray[np.bool_]


@dataclass(frozen=True)
class Drawn:
    """The next tokens of N sequences: `ids` (N,) int64, and their `logprobs` (N,) float64.

    `peaks` (N,) float32 are the largest logits; where one is not finite, no token could be chosen.
    """

    ids: NDArray[np.int64]
    logprobs: NDArray[np.float64]
    peaks: NDArray[np.float32]

    @classmethod
    @np.errstate(invalid="ignore")  # of damaged logits, which `peaks` tell of
    def of(cls, ids: NDArray[np.int64], logits: NDArray[np.float32]) -> Self:
        """Tokens that were chosen from `logits` (N, V)."""
        each = [log_probability(*one) for one in zip(logits, ids.tolist(), strict=True)]
        return cls(ids, np.array(each), logits.max(1))


def log_probability(logits: NDArray[np.float32], token: int) -> float:
    """Natural logarithm of a token's probability under softmax, to 1e-6; `logits` are (V,)."""
    peak = logits.max()
    with np.errstate(over="ignore"):  # to -inf
        relative = logits - peak
        total = np.exp(relative, out=relative).sum(dtype=np.float64)
    return float(logits[token]) - float(peak) - math.log(total)


class Decoding(Iterator[Drawn], Protocol):
    """Steps of some sequences that feed their own tokens; each item has the tokens of a step.

    The device may run ahead. While it is open, the states that it was made with are its own. An
    exception, such as a KeyboardInterrupt, closes it.
    """

    def take(self, rows: Indices) -> States:
        """A copy of some sequences' states, which have read all tokens but those drawn last."""

    def close(self) -> None:
        """End it, and leave the states as `take` has them. Does nothing when called again."""


@runtime_checkable
class Decoder(Launcher, Protocol):
    """A launcher that chooses the tokens of a language model itself.

    They are the tokens that docs/arithmetic.md defines, as on the host.
    """

    @property
    def most_sequences(self) -> int:
        """How many may decode together."""

    def decodes(self, choices: Choices) -> bool:
        """Whether it chooses tokens so; the host chooses them from logits where it does not."""

    def decode(self, batch: Batch, choices: Choices, states: Any, steps: int) -> Decoding:
        """At most `steps` steps, of which the first reads `batch`: one token of each sequence.

        A step draws the token that follows the one it read, at the next position, marks it as seen,
        and the next step reads it. `choices` are in the order of the batch, and `decodes` takes
        them.
        """
