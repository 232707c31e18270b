"""Numbers in sentences."""

from __future__ import annotations

import math

import pytest

from mmfree_compiler.wording import bounds, counted


def test_counted() -> None:
    found = [counted(number, "token") for number in (0, 1, 2, 1234)]
    assert found == ["0 tokens", "1 token", "2 tokens", "1,234 tokens"]


@pytest.mark.parametrize(
    ("low", "high", "text"),
    [
        (0, 1e6, "at least 0 and at most 1,000,000"),
        (1e-3, 1e3, "at least 0.001 and at most 1,000"),
        (0, math.inf, "at least 0"),
        (math.ulp(0.0), 1, "more than 0 and at most 1"),
    ],
)
def test_bounds(low: float, high: float, text: str) -> None:
    assert bounds(low, high) == text
