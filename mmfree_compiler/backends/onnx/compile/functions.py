"""Elementary functions in the steps of docs/arithmetic.md: names in a graph to names."""

from __future__ import annotations

from mmfree_compiler import elementary as e
from mmfree_compiler.backends.onnx.compile.graph import Graph
from mmfree_compiler.backends.onnx.compile.powers import Powers

# From here on down, 1 + e^x is 1.
_SIGMOID_LEAST = -87.0


def exp(g: Graph, powers: Powers, x: str) -> str:
    x = g("Clip", x, e.EXP_LEAST, e.EXP_MOST)
    n = g("Round", g("Mul", x, e.LOG2_E))
    r = g("Sub", g("Sub", x, g("Mul", n, e.LN2_HIGH)), g("Mul", n, e.LN2_LOW))
    p = polynomial(g, r, e.EXP)
    mantissa = g("Add", g("Add", g("Mul", p, g("Mul", r, r)), r), 1.0)
    half = g("Floor", g("Mul", n, 0.5))
    first = g("Mul", mantissa, powers.raised(g, g("Sub", n, half), 0))
    return g("Mul", first, powers.raised(g, half, 0))


def sigmoid(g: Graph, powers: Powers, x: str) -> str:
    """1 / (1 + e^-x), with fewer nodes than `exp` and the same bits.

    n and -2r come from x itself, since rounding has no side; `Sum` adds from the left. The mantissa
    is twice as large, so that one power of two, 2^(n-1), is enough: where it is below 2^-126, the
    sum with 1 is 1.
    """
    x = g("Clip", x, -e.EXP_MOST, -_SIGMOID_LEAST)
    n = g("Round", g("Mul", x, -e.LOG2_E))
    r = g("Sum", x, x, g("Mul", n, 2 * e.LN2_HIGH), g("Mul", n, 2 * e.LN2_LOW))
    # Horner's rule in -2r: powers of two in the coefficients round nothing.
    units = [(-0.5) ** k / 2 for k in reversed(range(len(e.EXP)))]
    p = polynomial(g, r, tuple(c * unit for c, unit in zip(e.EXP, units, strict=True)))
    mantissa = g("Add", g("Sub", g("Mul", p, g("Mul", r, r)), r), 2.0)
    power = g("Mul", mantissa, powers.raised(g, n, -1))
    return g("Reciprocal", g("Add", power, 1.0))


def silu(g: Graph, powers: Powers, x: str) -> str:
    return g("Mul", x, sigmoid(g, powers, x))


def tanh(g: Graph, powers: Powers, x: str) -> str:
    z, size = g("Mul", x, x), g("Abs", x)
    near = g("Add", x, g("Mul", x, g("Mul", z, polynomial(g, z, e.TANH))))
    power = exp(g, powers, g("Add", size, size))
    far = g("Sub", 1.0, g("Div", 2.0, g("Add", power, 1.0)))
    signed = g("Mul", far, g("Sign", x))
    made = g("Where", g("Less", size, e.TANH_NEAR), near, signed)
    return g("Where", g("Greater", size, 0.0), made, x)  # -0, which Where loses in front


def polynomial(g: Graph, x: str, coefficients: tuple[float, ...]) -> str:
    """By Horner's rule, highest power first."""
    first, second, *rest = coefficients
    total = g("Add", g("Mul", x, first), second)
    for coefficient in rest:
        total = g("Add", g("Mul", total, x), coefficient)
    return total


def maximum(g: Graph, x: str, y: str) -> str:
    """+0 of two zeros that differ in sign: what is added is -0 unless a +0 is among two zeros."""
    signs = g("Add", g("Clip", x, -1.0, 1.0), g("Clip", y, -1.0, 1.0))
    return g("Add", g("Max", x, y), g("Mul", signs, 0.0))


def minimum(g: Graph, x: str, y: str) -> str:
    return g("Neg", maximum(g, g("Neg", x), g("Neg", y)))


def relu(g: Graph, x: str) -> str:
    """NaN and -0 stay."""
    return g("Where", g("Less", x, 0.0), 0.0, x)
