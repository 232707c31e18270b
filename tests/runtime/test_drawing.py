"""Integer weights: a nucleus and a draw, against their definitions in Python's integers."""

from __future__ import annotations

from fractions import Fraction
from itertools import accumulate
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from mmfree_compiler.runtime.drawing import draw, nucleus

LIKELIEST = 2**30
# Ties and zeros are common; more than one block of sums; all cuts of the nucleus are met.
WEIGHTS = arrays(
    np.int32,
    st.integers(1, 700),
    elements=st.one_of(
        st.sampled_from([0, 1, 5, 2**14, 2**22, 2**29, LIKELIEST]), st.integers(0, LIKELIEST)
    ),
).filter(lambda weights: weights.any())


def rounded_share(top_p: float) -> int:
    """`top_p * 2^15`, half to even: what `round` does with an exact fraction."""
    return round(Fraction(top_p) * 2**15)


def slow_nucleus(weights: list[int], top_p: float) -> list[int]:
    """The shortest prefix, of one weight or more, in descending order; others are 0."""
    order = sorted(range(len(weights)), key=lambda i: (-weights[i], i))
    wanted = rounded_share(top_p) * sum(weights)
    sums = accumulate(weights[i] for i in order)
    count = next(n for n, found in enumerate(sums, 1) if found * 2**15 >= wanted)
    kept = set(order[:count])
    return [weight if i in kept else 0 for i, weight in enumerate(weights)]


def slow_draw(weights: list[int], bits: int) -> int:
    drawn = bits * sum(weights) >> 64
    return next(i for i, found in enumerate(accumulate(weights)) if found > drawn)


@given(WEIGHTS, st.one_of(st.floats(5e-324, 1), st.sampled_from([2**-16, 3 * 2**-16, 1 - 2**-16])))
@example(np.full(600, LIKELIEST, np.int32), 0.5)
@example(np.full(600, 1, np.int32), 0.999)
def test_the_nucleus_is_the_shortest_prefix(weights: Any, top_p: float) -> None:
    before = weights.copy()
    assert nucleus(weights, top_p).tolist() == slow_nucleus(weights.tolist(), top_p)
    assert np.array_equal(weights, before)


@given(WEIGHTS, st.integers(0, 2**64 - 1))
def test_a_draw_is_where_the_sum_exceeds_it(weights: Any, bits: int) -> None:
    assert draw(weights, bits) == slow_draw(weights.tolist(), bits)


@pytest.mark.parametrize("bits", [0, 1, 2**62 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1])
def test_draws_at_edges(bits: int) -> None:
    weights = np.array([0, 0, 1, 0, 1, 2, 0, 0], np.int32)
    expected = [2, 4, 5, 5][bits >> 62]
    assert draw(weights, bits) == expected == slow_draw(weights.tolist(), bits)


def test_sums_beyond_32_and_60_bits() -> None:
    """A large vocabulary of equal tokens: products of its sum do not fit 64 bits."""
    weights = np.full(1 << 19, LIKELIEST, np.int32)
    assert draw(weights, 2**64 - 1) == weights.size - 1
    assert draw(weights, 2**63) == weights.size // 2
    kept = nucleus(weights, 0.75)
    assert np.flatnonzero(kept).tolist() == list(range(weights.size * 3 // 4))
