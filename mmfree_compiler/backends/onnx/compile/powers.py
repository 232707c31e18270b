"""Powers of two, by the bits of floats or, for runtimes without BitCast, by tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from mmfree_compiler.backends.onnx.compile.graph import Graph
from mmfree_compiler.backends.onnx.variants import MS, STANDARD
from mmfree_compiler.elementary import FIXED_BITS, LEAST_EXPONENT

MANTISSA, BIAS = 23, 127  # of a float32
_ONE_BIT = 2.0**MANTISSA  # the exponent's lowest bit, as an integer
_EXPONENT = np.int32(0x7F800000)
_MOST_EXPONENT = 128  # every finite float32 is below 2^128


@dataclass(frozen=True)
class Powers:
    """`raised(g, n, shift)`: 2^(n + shift) of float32 integers n; any number where n is NaN.

    n + shift is within -126..127; 2^-127 may be 0. `unit(g, peak)`: 2^(e - FIXED_BITS) for the
    least e from LEAST_EXPONENT with peak < 2^e; any number where `peak` is not finite.
    """

    raised: Callable[[Graph, str, int], str]
    unit: Callable[[Graph, str], str]


def _raised_by_bits(g: Graph, n: str, shift: int) -> str:
    bits = g("Add", g("Mul", n, _ONE_BIT), (BIAS + shift) * _ONE_BIT)
    return g("BitCast", g("Cast", bits, to=TensorProto.INT32), to=TensorProto.FLOAT)


def _unit_by_bits(g: Graph, peak: str) -> str:
    """A peak with exponent bits b is below 2^(b - BIAS + 1)."""
    bits = g("BitwiseAnd", g("BitCast", peak, to=TensorProto.INT32), _EXPONENT)
    least = np.int32(LEAST_EXPONENT + BIAS - 1 << MANTISSA)
    down = np.int32(FIXED_BITS - 1 << MANTISSA)
    return g("BitCast", g("Sub", g("Max", bits, least), down), to=TensorProto.FLOAT)


def _raised_by_table(g: Graph, n: str, shift: int) -> str:
    """The index of NaN is some integer, which Clip takes into the table."""
    powers = np.ldexp(np.float32(1), np.arange(-BIAS, BIAS + 1)).astype(np.float32)
    index = g("Cast", g("Add", n, float(BIAS + shift)), to=TensorProto.INT32)
    return g("Gather", powers, g("Clip", index, np.int32(0), np.int32(2 * BIAS)))


def _unit_by_table(g: Graph, peak: str) -> str:
    """The least unit of those whose limit is above the peak."""
    exponents = range(LEAST_EXPONENT, _MOST_EXPONENT + 1)
    limits = np.array([*(2.0**e for e in exponents[:-1]), np.inf], np.float32)
    units = np.array([2.0 ** (e - FIXED_BITS) for e in exponents], np.float32)
    fitting = g("Where", g("Less", peak, limits), units, float(units[-1]))
    return g("ReduceMin", fitting, (-1,))


POWERS = {
    STANDARD: Powers(_raised_by_bits, _unit_by_bits),
    MS: Powers(_raised_by_table, _unit_by_table),
}
