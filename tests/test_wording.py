"""Numbers and names in sentences."""

from __future__ import annotations

import math

import pytest

from mmfree_compiler.errors import MmfreeError
from mmfree_compiler.wording import bounds, counted, given, printable, significant


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.1 + 0.2, "0.3"),
        (10.0**25 / 9, "1.111111111e+24"),
        (math.nan, "nan"),
        (7, "7"),
        ("7", "'7'"),
    ],
)
def test_what_somebody_passed_has_few_digits(value: object, shown: str) -> None:
    assert given(value) == shown


@pytest.mark.parametrize(
    ("number", "shown"),
    [
        (0.0, "0"),
        (0.051278, "0.0513"),
        (3.0, "3.00"),
        (99.96, "100"),
        (999.6, "1,000"),
        (21149.0, "21,100"),
        (-12.04, "-12.0"),
        (math.inf, "inf"),
    ],
)
def test_three_digits(number: float, shown: str) -> None:
    assert significant(number) == shown


def test_printable() -> None:
    plain = "gr\u00f6\u00dfer\n\t\u2192 \U0001f600\u3000\u00a0\u200c\u200d"
    assert printable(plain) == plain
    assert printable("\x1b[2J\x9b1m\r\x00\u202e'\\") == "\\x1b[2J\\x9b1m\\r\\x00\\u202e'\\"
    assert str(MmfreeError("a\x1bb", "c\x07", "d\u2066")) == "a\\x1bb: c\\x07. d\\u2066"


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
