"""`exp` in NumPy: the steps of ops/exp.py and docs/arithmetic.md, with the same bits."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler import elementary as e

Floats = NDArray[np.float32]
Integers = NDArray[np.int32]


@np.errstate(over="ignore", under="ignore", invalid="ignore")  # at infinity, zero and NaN
def exp(x: Floats) -> Floats:
    """`e^x` of float32 `x`, which stays as it is. Steps are in place: arrays may be large."""
    n, r = _reduced(x)
    result = _mantissa(r)
    exponent = n.astype(np.int32)  # of NaN, any: it stays in the mantissa
    half = exponent >> 1
    exponent -= half
    result *= _power_of_two(exponent)
    result *= _power_of_two(half)
    return result


def _reduced(x: Floats) -> tuple[Floats, Floats]:
    """`n = round(x / ln 2)`, and `r = x - n * ln 2`."""
    r = np.clip(x, e.EXP_LEAST, e.EXP_MOST)
    n = r * e.LOG2_E
    np.rint(n, out=n)
    r -= n * e.LN2_HIGH
    r -= n * e.LN2_LOW
    return n, r


def _mantissa(r: Floats) -> Floats:
    """`P(r) * (r * r) + r + 1`, P by Horner's rule."""
    total = r * e.EXP[0]
    total += e.EXP[1]
    for coefficient in e.EXP[2:]:
        total *= r
        total += coefficient
    total *= r * r
    total += r
    total += 1
    return total


def _power_of_two(n: Integers) -> Floats:
    """2^n, which replaces n, in -126..127."""
    n += 127
    n <<= 23
    return n.view(np.float32)
