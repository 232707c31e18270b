"""exp and what is made of it, in the steps of the references in ops/: the same bits.

docs/arithmetic.md says why the steps are these.
"""

from __future__ import annotations

from tvm.script import tirx as T
from tvm.tirx.script.builder import ir as I

from mmfree_compiler import elementary as e
from mmfree_compiler.backends.cpu.compile import vector as v
from mmfree_compiler.backends.cpu.compile.vector import Expr

# From here on up, 1 + e^-x is 1; and 2^(n - 1) is a fp32 number for every smaller x.
_ADDS_NOTHING = 80.0
_BIAS = 127  # of a fp32 number's exponent, which begins at bit 23


def exp(x: Expr) -> Expr:
    mantissa, n = _parts(v.at_most(e.EXP_MOST, v.at_least(e.EXP_LEAST, x)))
    half, bias = I.bind(T.shift_right(n, v.splat_int(1))), v.splat_int(_BIAS)
    powers = _power_of_two(n - half + bias), _power_of_two(half + bias)
    return v.multiply(v.multiply(mantissa, powers[0]), powers[1])


def _one_and_exp_of_minus(x: Expr) -> Expr:
    """`1 + exp(-x)`, to the bit, with one power of two: results below 2^-126 would add nothing."""
    x = v.at_most(_ADDS_NOTHING, v.at_least(-e.EXP_MOST, x))
    twice, biased = _parts(x, sign=-1.0, scale=2.0, plus=_BIAS - 1)
    return v.add(v.splat(1.0), v.multiply(twice, _power_of_two(biased)))


def _parts(x: Expr, sign: float = 1.0, scale: float = 1.0, plus: int = 0) -> tuple[Expr, Expr]:
    """`scale` * m, m near 1, and the low bits of n + `plus`, of `e^(sign x) = m * 2^n`.

    The exponent is from EXP_LEAST to EXP_MOST. `scale` is a power of two: all steps scale exactly.
    """
    n, low_bits = v.nearest(v.multiply(x, v.splat(sign * e.LOG2_E)), plus)
    signed = x if sign > 0 else v.negative(x)
    high = v.subtract(signed, v.multiply(n, v.splat(e.LN2_HIGH)))
    r = v.subtract(high, v.multiply(n, v.splat(e.LN2_LOW)))
    tail = _polynomial(r, tuple(scale * coefficient for coefficient in e.EXP))
    curved = v.multiply(tail, v.multiply(r, r))
    return v.add(v.add(curved, v.multiply(r, v.splat(scale))), v.splat(scale)), low_bits


def sigmoid(x: Expr) -> Expr:
    return v.divide(v.splat(1.0), _one_and_exp_of_minus(x))


def silu(x: Expr) -> Expr:
    return v.multiply(x, sigmoid(x))


def tanh(x: Expr) -> Expr:
    z, size = v.multiply(x, x), I.bind(v.absolute(x))
    near = v.add(x, v.multiply(x, v.multiply(z, _polynomial(z, e.TANH))))
    grown = _one_and_exp_of_minus(v.negative(v.add(size, size)))
    far = v.subtract(v.splat(1.0), v.divide(v.splat(2.0), grown))
    return v.with_sign(T.Select(size < v.splat(e.TANH_NEAR), near, far), x)


def _polynomial(x: Expr, coefficients: tuple[float, ...]) -> Expr:
    """By Horner's rule; the highest power comes first."""
    total = v.splat(coefficients[0])
    for coefficient in coefficients[1:]:
        total = v.add(v.multiply(total, x), v.splat(coefficient))
    return total


def _power_of_two(biased: Expr) -> Expr:
    """2^n in fp32, n in -126..127, of an int32 whose low bits are those of n + 127."""
    return T.reinterpret(v.FLOATS, T.shift_left(biased, v.splat_int(23)))
