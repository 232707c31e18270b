"""The format of fp32 numbers: powers of two, rounding to integers, inverses, by their bits."""

from __future__ import annotations

import triton
import triton.language as tl
from triton import knobs

FRACTION_BITS = tl.constexpr(23)
BIAS = tl.constexpr(127)  # of the exponent
MAGNITUDE_BITS = tl.constexpr(0x7FFFFFFF)
SIGN_BIT = tl.constexpr(-(2**31))
INFINITY_BITS = tl.constexpr(0x7F800000)

# Numbers from 2^23 to 2^24 are 1 apart, and their bits count up with them: adding one of these
# rounds to an integer, half to even. This costs less than the conversion instruction.
_CENTER, _CENTER_BITS = tl.constexpr(1.5 * 2.0**23), tl.constexpr(0x4B400000)
_LEAST, _LEAST_BITS = tl.constexpr(2.0**23), tl.constexpr(0x4B000000)

_INTERPRETED = tl.constexpr(knobs.runtime.interpret)
_NUMBERS = tl.constexpr(4)  # that one piece of PTX takes
# x r - 1 is exact enough for one step of Newton's method to round correctly, as PTX's rcp.rn does
# it where 1 / x is a normal number; up to 2^126 it is.
_INVERSES = tl.constexpr(
    "{.reg .pred normal; .reg .f32 r<4>; .reg .f32 e<4>; .reg .f32 most;"
    + "".join(
        f"rcp.approx.ftz.f32 r{n}, ${n + 4}; fma.rn.f32 e{n}, ${n + 4}, r{n}, 0fBF800000;"
        f"neg.f32 e{n}, e{n}; fma.rn.f32 r{n}, r{n}, e{n}, r{n};"
        for n in range(4)
    )
    + "max.f32 most, $4, $5; max.f32 most, most, $6; max.f32 most, most, $7;"
    "setp.le.f32 normal, most, 0f7E800000; @normal bra done;"
    + "".join(f"rcp.rn.f32 r{n}, ${n + 4};" for n in range(4))
    + "done: "
    + "".join(f"mov.f32 ${n}, r{n};" for n in range(4))
    + "}"
)


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


@triton.jit
def inverse(x: tl.tensor) -> tl.tensor:
    """`1 / x`, correctly rounded; x is at least 1, or NaN.

    A division has a branch for each number, so that those of a thread follow each other.
    """
    if _INTERPRETED:
        found = tl.div_rn(1.0, x)
    else:
        found = tl.inline_asm_elementwise(
            _INVERSES,
            "=f,=f,=f,=f,f,f,f,f",
            [x],
            dtype=tl.float32,
            is_pure=True,
            pack=_NUMBERS,
        )
    return found
