"""Sampling, step by step: equal logits and a seed give equal tokens on every machine."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from test_drawing import slow_draw, slow_nucleus
from test_sampling import LEAST, LOGITS, SAMPLINGS

from mmfree_compiler.backends.exp import exp
from mmfree_compiler.runtime import next_token
from mmfree_compiler.runtime.next_token import distribution, sample
from mmfree_compiler.runtime.sampling import Sampling


@given(LOGITS, SAMPLINGS, st.integers(0, 2**30), st.integers(0, 2**64 - 1))
def test_weights_by_their_definition(
    logits: Any, sampling: Sampling, flags: int, bits: int
) -> None:
    """The steps of docs/arithmetic.md, one fp32 number after another; then Python's integers."""
    seen = (flags >> np.arange(logits.size)) % 2 == 1
    scores, penalty = list(logits), np.float32(sampling.repetition_penalty)
    for i in np.flatnonzero(seen):
        scores[i] = scores[i] / penalty if scores[i] > 0 else scores[i] * penalty
    kept = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    kept = sorted(kept[: (sampling.top_k or None) if sampling.temperature else 1])
    temperature = np.float32(sampling.temperature or 1)
    relative = np.array([(scores[i] - max(scores)) / temperature for i in kept], np.float32)
    weights = [round(float(e) * 2**30) for e in exp(relative)]
    weights = slow_nucleus(weights, sampling.top_p)
    expected = [i for i, weight in zip(kept, weights, strict=True) if weight]
    ids, probabilities = distribution(logits, seen, sampling)
    assert ids.tolist() == expected
    assert probabilities.tolist() == [weight / sum(weights) for weight in weights if weight]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(next_token, "random_bits", lambda *_: bits)
        chosen, _ = sample(logits, seen, sampling, 0, 0)
    assert chosen == kept[slow_draw(weights, bits)]


def floats_between(low: float, high: float) -> np.ndarray[Any, Any]:
    """Every fp32 number from `low` to `high`, both negative, ascending."""
    first, last = np.array([high, low], np.float32).view(np.int32)
    return np.arange(last, first - 1, -1, dtype=np.int32).view(np.float32)


def test_where_weights_end() -> None:
    """Weights are 0 below `LEAST` and not from it on: every number in -23..-20, others in steps."""
    x = floats_between(-23, -20)
    assert np.array_equal(np.rint(exp(x) * np.float32(2**30)) > 0, x >= LEAST)
    assert exp(floats_between(-104, -23)[::7]).max() < 2**-31
    assert exp(floats_between(-20, -1)[::7]).min() > 2**-31
    assert exp(floats_between(-1, -1e-3)[::7]).min() > 2**-31
    assert next_token._LEAST == LEAST


# (i * 37 % 101) / 8: exact in fp32, no order, two of most values.
GOLDEN_LOGITS = (np.arange(190) * 37 % 101 / 8).astype(np.float32)
GOLDEN: list[tuple[dict[str, Any], int, list[int]]] = [
    ({}, 1, [161, 161, 109, 8, 128, 57, 27, 90, 169, 128, 109, 131, 188, 5, 155, 27]),
    (
        {"temperature": 0.7, "top_p": 0.9},
        1,
        [161, 161, 109, 16, 131, 57, 30, 90, 161, 131, 109, 131, 188, 8, 150, 27],
    ),
    (
        {"temperature": 1.5, "top_k": 50, "repetition_penalty": 1.3},
        2**64 - 1,
        [16, 49, 79, 131, 150, 161, 49, 139, 95, 109, 19, 161, 95, 133, 32, 16],
    ),
    (
        {"temperature": 3.0, "top_p": 0.95},
        0,
        [166, 68, 60, 79, 131, 7, 152, 8, 120, 30, 155, 8, 49, 113, 8, 166],
    ),
]


@pytest.mark.parametrize(("settings", "seed", "expected"), GOLDEN)
def test_the_tokens_of_a_seed_never_change(
    settings: dict[str, Any], seed: int, expected: list[int]
) -> None:
    seen, sampling = np.arange(190) % 3 == 0, Sampling(**settings)
    drawn = [sample(GOLDEN_LOGITS, seen, sampling, seed, at)[0] for at in range(len(expected))]
    assert drawn == expected
