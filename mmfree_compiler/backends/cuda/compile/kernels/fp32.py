"""The format of fp32 numbers: powers of two, and rounding to integers, by their bits."""

from __future__ import annotations

import triton
import triton.language as tl

FRACTION_BITS = tl.constexpr(23)
BIAS = tl.constexpr(127)  # of the exponent
MAGNITUDE_BITS = tl.constexpr(0x7FFFFFFF)
SIGN_BIT = tl.constexpr(-(2**31))
INFINITY_BITS = tl.constexpr(0x7F800000)

# Numbers from 2^23 to 2^24 are 1 apart, and their bits count up with them: adding one of these
# rounds to an integer, half to even. This costs less than the conversion instruction.
_CENTER, _CENTER_BITS = tl.constexpr(1.5 * 2.0**23), tl.constexpr(0x4B400000)
_LEAST, _LEAST_BITS = tl.constexpr(2.0**23), tl.constexpr(0x4B000000)


@triton.jit
def bits(x: tl.tensor) -> tl.tensor:
    """The int32 with the bits of each fp32."""
    return x.to(tl.int32, bitcast=True)


@triton.jit
def power_of_two(n: tl.tensor) -> tl.tensor:
    """2^n in fp32: n int32 in -126..127."""
    return ((n + BIAS) << FRACTION_BITS).to(tl.float32, bitcast=True)


@triton.jit
def nearest(x: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """The nearest integer as fp32 and as int32, |x| <= 2^22; of NaN: NaN, and some integer."""
    shifted = x + _CENTER
    return shifted - _CENTER, bits(shifted) - _CENTER_BITS


@triton.jit
def nearest_magnitude(x: tl.tensor) -> tl.tensor:
    """The nearest integer of |x| as int32, |x| <= 2^23; some integer where x is not finite."""
    return bits(tl.abs(x) + _LEAST) - _LEAST_BITS


@triton.jit
def finite_or_nan(x: tl.tensor) -> tl.tensor:
    """x, at least 0; NaN where it is infinite."""
    return tl.where(x < float("inf"), x, float("nan"))
