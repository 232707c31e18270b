"""Pointwise ops on fp32 blocks of any shape, one function per op, in the steps of its reference.

docs/arithmetic.md says why the steps are these.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mmfree_compiler import elementary as e
from mmfree_compiler.backends.cuda.compile.kernels.fp32 import (
    SIGN_BIT,
    bits,
    nearest,
    power_of_two,
)

_LOG2_E = tl.constexpr(e.LOG2_E)
_LN2_HIGH, _LN2_LOW = tl.constexpr(e.LN2_HIGH), tl.constexpr(e.LN2_LOW)
_EXP_LEAST, _EXP_MOST = tl.constexpr(e.EXP_LEAST), tl.constexpr(e.EXP_MOST)
_EXP, _EXP_TERMS = tl.constexpr(e.EXP), tl.constexpr(len(e.EXP))
_TANH, _TANH_TERMS = tl.constexpr(e.TANH), tl.constexpr(len(e.TANH))
_TANH_NEAR = tl.constexpr(e.TANH_NEAR)
# From here on down, 1 + e^x is 1; and 2^(n - 1) is a fp32 number for every larger x.
_ADDS_NOTHING = tl.constexpr(-80.0)


@triton.jit
def abs(x: tl.tensor) -> tl.tensor:  # noqa: A001 - the op's name
    return tl.abs(x)


@triton.jit
def add(x: tl.tensor, y: tl.tensor) -> tl.tensor:
    return x + y


@triton.jit
def div(x: tl.tensor, y: tl.tensor) -> tl.tensor:
    return tl.div_rn(x, y)


@triton.jit
def exp(x: tl.tensor) -> tl.tensor:
    mantissa, n = _parts(_between(x, _EXP_LEAST, _EXP_MOST))
    half = n >> 1
    return mantissa * power_of_two(n - half) * power_of_two(half)


@triton.jit
def identity(x: tl.tensor) -> tl.tensor:
    return x


@triton.jit
def maximum(x: tl.tensor, y: tl.tensor) -> tl.tensor:
    """NaN if either is NaN; +0 is larger than -0."""
    larger = tl.maximum(x, y, propagate_nan=tl.PropagateNan.ALL)
    return tl.where((x == 0.0) & (y == 0.0), x + y, larger)


@triton.jit
def minimum(x: tl.tensor, y: tl.tensor) -> tl.tensor:
    """NaN if either is NaN; -0 is smaller than +0."""
    return neg(maximum(neg(x), neg(y)))


@triton.jit
def mul(x: tl.tensor, y: tl.tensor) -> tl.tensor:
    return x * y


@triton.jit
def neg(x: tl.tensor) -> tl.tensor:
    return x * -1.0


@triton.jit
def rdiv(x: tl.tensor, y: tl.tensor) -> tl.tensor:
    """`y / x`."""
    return tl.div_rn(y, x)


@triton.jit
def reciprocal(x: tl.tensor) -> tl.tensor:
    return tl.div_rn(1.0, x)


@triton.jit
def relu(x: tl.tensor) -> tl.tensor:
    """NaN and -0 stay."""
    return tl.where(x < 0.0, 0.0, x)


@triton.jit
def sigmoid(x: tl.tensor) -> tl.tensor:
    return tl.div_rn(1.0, _one_and_exp(neg(x)))


@triton.jit
def silu(x: tl.tensor) -> tl.tensor:
    return x * sigmoid(x)


@triton.jit
def sqrt(x: tl.tensor) -> tl.tensor:
    return tl.sqrt_rn(x)


@triton.jit
def square(x: tl.tensor) -> tl.tensor:
    return x * x


@triton.jit
def sub(x: tl.tensor, y: tl.tensor) -> tl.tensor:
    return x - y


@triton.jit
def tanh(x: tl.tensor) -> tl.tensor:
    size = tl.abs(x)
    z = size * size
    near = size + size * (z * _polynomial(z, _TANH, _TANH_TERMS))
    far = 1.0 - tl.div_rn(2.0, _one_and_exp(size + size))
    unsigned = bits(tl.where(size < _TANH_NEAR, near, far))
    return (unsigned | (bits(x) & SIGN_BIT)).to(tl.float32, bitcast=True)


@triton.jit
def swiglu(gate: tl.tensor, up: tl.tensor) -> tl.tensor:
    """`silu(gate) * up`."""
    return silu(gate) * up


@triton.jit
def gates(i: tl.tensor, f: tl.tensor, low: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """(c, forget) of mlgru_gates with the lower bound `low`."""
    forget = low + (1.0 - low) * sigmoid(f)
    return silu(i) * (1.0 - forget), forget


@triton.jit
def gates_unbounded(i: tl.tensor, f: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """(c, forget) of mlgru_gates without a bound."""
    forget = sigmoid(f)
    return silu(i) * (1.0 - forget), forget


@triton.jit
def scan_step(h: tl.tensor, c: tl.tensor, forget: tl.tensor) -> tl.tensor:
    """The h after a token, from the h before it."""
    return forget * h + c


# --- exp -----------------------------------------------------------------------------------------


@triton.jit
def _parts(x: tl.tensor) -> tuple[tl.tensor, tl.tensor]:
    """m, near 1, and int32 n with `e^x = m * 2^n`, for x from EXP_LEAST to EXP_MOST."""
    n, exponent = nearest(x * _LOG2_E)
    r = x - n * _LN2_HIGH - n * _LN2_LOW
    return _polynomial(r, _EXP, _EXP_TERMS) * (r * r) + r + 1.0, exponent


@triton.jit
def _one_and_exp(x: tl.tensor) -> tl.tensor:
    """`1 + exp(x)`, to the bit, with one power of two: results below 2^-126 would add nothing."""
    mantissa, n = _parts(_between(x, _ADDS_NOTHING, _EXP_MOST))
    return 1.0 + mantissa * power_of_two(n - 1) * 2.0


@triton.jit
def _between(x: tl.tensor, low: tl.constexpr, high: tl.constexpr) -> tl.tensor:
    """x, but the bound that it is beyond; NaN stays."""
    return tl.clamp(x, low, high, propagate_nan=tl.PropagateNan.ALL)


@triton.jit
def _polynomial(x: tl.tensor, coefficients: tl.constexpr, terms: tl.constexpr) -> tl.tensor:
    """By Horner's rule; the highest power comes first."""
    total = x * coefficients[0] + coefficients[1]
    for k in tl.static_range(2, terms):
        total = total * x + coefficients[k]
    return total
