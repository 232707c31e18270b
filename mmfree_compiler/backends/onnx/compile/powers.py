"""Powers of two, by the bits of floats or, for runtimes without BitCast, by tables."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from onnx import TensorProto

from mmfree_compiler.backends.onnx.compile.graph import Array, Graph
from mmfree_compiler.backends.onnx.variants import MS, STANDARD
from mmfree_compiler.elementary import LEAST_EXPONENT, LEAST_PEAK

MANTISSA, BIAS = 23, 127  # of a float32
_ONE_BIT = 2.0**MANTISSA  # the exponent's lowest bit, as an integer
_EXPONENT, _ALL = np.int32(0x7F800000), np.int32(-1)
_MOST_EXPONENT = 128  # every finite float32 is below 2^128
_LEAST_POWER = np.float32(2.0 ** (LEAST_EXPONENT - 1))
_LAST = (-1,)


@dataclass(frozen=True)
class Kinds:
    """How many rows of each kind are stacked.

    `fixed` rows come first: their sums are taken in fixed point. The others, `coded`, become codes.
    """

    fixed: int = 0
    coded: int = 0

    def each(self, fixed: np.generic, coded: np.generic) -> Array | np.generic:
        """A constant for each row; a scalar where all rows are of one kind."""
        if not self.coded:
            return fixed
        if not self.fixed:
            return coded
        numbers = np.array([fixed] * self.fixed + [coded] * self.coded)
        return numbers.reshape(-1, 1, 1, 1)


@dataclass(frozen=True)
class Powers:
    """`raised(g, n, shift)`: 2^(n + shift) of float32 integers n; any number where n is NaN.

    n + shift is within -126..127; 2^-127 may be 0. `peaks(g, rows, kinds)`: see `factors` in
    statistics.py.
    """

    raised: Callable[[Graph, str, int], str]
    peaks: Callable[[Graph, str, Kinds], str]


def _raised_by_bits(g: Graph, n: str, shift: int) -> str:
    bits = g("Add", g("Mul", n, _ONE_BIT), (BIAS + shift) * _ONE_BIT)
    return g("BitCast", g("Cast", bits, to=TensorProto.INT32), to=TensorProto.FLOAT)


def _peaks_by_bits(g: Graph, rows: str, kinds: Kinds) -> str:
    """Bits of magnitudes are in their order as integers, those of NaN last.

    ReduceMax of floats does not see every NaN.
    """
    bits = g("ReduceMax", g("BitCast", g("Abs", rows), to=TensorProto.INT32), _LAST)
    least = kinds.each(_LEAST_POWER.view(np.int32), np.float32(LEAST_PEAK).view(np.int32))
    bits = g("Max", bits, least)
    if kinds.fixed:
        bits = g("BitwiseAnd", bits, kinds.each(_EXPONENT, _ALL))
    return g("BitCast", bits, to=TensorProto.FLOAT)


def _raised_by_table(g: Graph, n: str, shift: int) -> str:
    """The index of NaN is some integer, which Clip takes into the table."""
    powers = np.ldexp(np.float32(1), np.arange(-BIAS, BIAS + 1)).astype(np.float32)
    index = g("Cast", g("Add", n, float(BIAS + shift)), to=TensorProto.INT32)
    return g("Gather", powers, g("Clip", index, np.int32(0), np.int32(2 * BIAS)))


def _peaks_by_table(g: Graph, rows: str, kinds: Kinds) -> str:
    """ReduceMax does not see every NaN, so a sum adds it."""
    peak = g("ReduceMax", g("Abs", rows), _LAST)
    peak = g("Add", peak, g("ReduceSum", g("Sub", rows, rows), _LAST))
    if not kinds.fixed:
        return g("Max", peak, LEAST_PEAK)
    power = _power_by_table(g, peak)
    if not kinds.coded:
        return power
    is_fixed = kinds.each(np.bool_(True), np.bool_(False))
    return g("Where", is_fixed, power, g("Max", peak, LEAST_PEAK))


def _power_by_table(g: Graph, peak: str) -> str:
    """The least 2^(e-1) of those whose 2^e is above the peak; infinity if none is."""
    exponents = range(LEAST_EXPONENT, _MOST_EXPONENT + 1)
    limits = np.array([*(2.0**e for e in exponents[:-1]), np.inf], np.float32)
    powers = np.array([2.0 ** (e - 1) for e in exponents], np.float32)
    return g("ReduceMin", g("Where", g("Less", peak, limits), powers, float(np.inf)), _LAST)


POWERS = {
    STANDARD: Powers(_raised_by_bits, _peaks_by_bits),
    MS: Powers(_raised_by_table, _peaks_by_table),
}
