"""exp and what is made of it, in the steps of the references in ops/: the same bits.

docs/numerics.md, "Elementary functions", says why the steps are these.
"""

from __future__ import annotations

from tvm.script import tirx as T
from tvm.tirx.script.builder import ir as I

from mmfree_compiler import elementary as e
from mmfree_compiler.backends.cpu.compile import vector as v
from mmfree_compiler.backends.cpu.compile.vector import Expr


def exp(x: Expr) -> Expr:
    x = v.at_most(e.EXP_MOST, v.at_least(e.EXP_LEAST, x))
    n, exponent = v.nearest(v.multiply(x, v.splat(e.LOG2_E)))
    high, low = (v.multiply(n, v.splat(part)) for part in (e.LN2_HIGH, e.LN2_LOW))
    r = v.subtract(v.subtract(x, high), low)
    curved = v.multiply(_polynomial(r, e.EXP), v.multiply(r, r))
    mantissa = v.add(v.add(curved, r), v.splat(1.0))
    half = I.bind(T.shift_right(exponent, v.splat_int(1)))
    return v.multiply(v.multiply(mantissa, _power_of_two(exponent - half)), _power_of_two(half))


def sigmoid(x: Expr) -> Expr:
    return v.divide(v.splat(1.0), v.add(v.splat(1.0), exp(v.negative(x))))


def silu(x: Expr) -> Expr:
    return v.multiply(x, sigmoid(x))


def tanh(x: Expr) -> Expr:
    z, size = v.multiply(x, x), I.bind(v.absolute(x))
    near = v.add(x, v.multiply(x, v.multiply(z, _polynomial(z, e.TANH))))
    grown = v.add(exp(v.add(size, size)), v.splat(1.0))
    far = v.subtract(v.splat(1.0), v.divide(v.splat(2.0), grown))
    return v.with_sign(T.Select(size < v.splat(e.TANH_NEAR), near, far), x)


def _polynomial(x: Expr, coefficients: tuple[float, ...]) -> Expr:
    """By Horner's rule; the highest power comes first."""
    total = v.splat(coefficients[0])
    for coefficient in coefficients[1:]:
        total = v.add(v.multiply(total, x), v.splat(coefficient))
    return total


def _power_of_two(n: Expr) -> Expr:
    """2^n in fp32: n int32 in -126..127."""
    return T.reinterpret(v.FLOATS, T.shift_left(n + v.splat_int(127), v.splat_int(23)))
