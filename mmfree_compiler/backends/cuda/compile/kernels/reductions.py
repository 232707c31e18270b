"""Reductions over a row that are exact in any order: its absmax, and sums in fixed point.

A row is a (BLOCK,) fp32 block whose columns from K on are 0: they change nothing here. Results are
scalars. With rows in a stack, (BLOCK, R), they are (R,): `tl.split(mean_square(tl.join(x, y), K))`
gives two means with the barriers of one.

docs/arithmetic.md has the steps; ops/statistics.py is the reference.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mmfree_compiler import elementary as e
from mmfree_compiler.backends.cuda.compile.kernels.fp32 import (
    BIAS,
    FRACTION_BITS,
    INFINITY_BITS,
    MAGNITUDE_BITS,
    bits,
    nearest_magnitude,
    power_of_two,
)

_FIXED_BITS, _LEAST_EXPONENT = tl.constexpr(e.FIXED_BITS), tl.constexpr(e.LEAST_EXPONENT)


@triton.jit
def absmax_bits(x: tl.tensor) -> tl.tensor:
    """The largest |x| by its bits, int32: they have the order of the numbers, NaN the largest."""
    return tl.max(magnitude_bits(x), axis=0)


@triton.jit
def magnitude_bits(x: tl.tensor) -> tl.tensor:
    """The bits of each |x|."""
    return bits(x) & MAGNITUDE_BITS


@triton.jit
def fixed_exponent(peak: tl.tensor) -> tl.tensor:
    """The int32 n of the row's fixed point: the least step 2^n in which |x| has 23 bits at most.

    `peak` is absmax_bits(x).
    """
    found = (peak >> FRACTION_BITS) - (BIAS - 1)
    return tl.maximum(found, _LEAST_EXPONENT) - _FIXED_BITS


@triton.jit
def fixed_step(peak: tl.tensor, n: tl.tensor) -> tl.tensor:
    """2^n; NaN if the row holds NaN or infinity."""
    return tl.where(peak < INFINITY_BITS, power_of_two(n), float("nan"))


@triton.jit
def mean_square(x: tl.tensor, K: tl.constexpr) -> tl.tensor:
    """The mean of the squares of K columns, at most 131,071; NaN if the row is not finite."""
    peak = absmax_bits(x)
    return mean_of_squares(tl.sum(squares(x, peak), axis=0), peak, K)


@triton.jit
def squares(x: tl.tensor, peak: tl.tensor) -> tl.tensor:
    """The squares in the row's fixed point, int64. `peak` is absmax_bits(x)."""
    wide = nearest_magnitude(x * power_of_two(-fixed_exponent(peak))).to(tl.int64)
    return wide * wide


@triton.jit
def mean_of_squares(total: tl.tensor, peak: tl.tensor, K: tl.constexpr) -> tl.tensor:
    """The mean square of a row from the sum of its `squares`."""
    step = fixed_step(peak, fixed_exponent(peak))
    return tl.div_rn(total.to(tl.float32) * step * step, K * 1.0)


@triton.jit
def mean(x: tl.tensor, K: tl.constexpr) -> tl.tensor:
    """The mean of K columns; NaN if the row holds NaN or infinity."""
    peak = absmax_bits(x)
    n = fixed_exponent(peak)
    size = nearest_magnitude(x * power_of_two(-n))
    total = tl.sum(tl.where(x < 0.0, -size, size).to(tl.int64), axis=0)
    return tl.div_rn(total.to(tl.float32), K * 1.0) * fixed_step(peak, n)


@triton.jit
def rstd(mean_square: tl.tensor, eps: tl.constexpr) -> tl.tensor:
    """`1 / sqrt(mean_square + eps)`."""
    return tl.div_rn(1.0, tl.sqrt_rn(mean_square + eps))
