"""Reductions over a row that are exact in any order: its absmax, and sums in fixed point.

docs/arithmetic.md has the steps; ops/statistics.py is the reference.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from tvm.script import tirx as T
from tvm.tirx.script.builder import ir as I

from mmfree_compiler import elementary as e
from mmfree_compiler.backends.cpu.compile import vector as v
from mmfree_compiler.backends.cpu.compile.vector import LANES, Buffer, Expr

Row = Callable[[Expr], Expr]  # column -> 16 floats of a row

FLOAT_MAX = 3.4028234e38
_BIAS, _EXPONENT_BIT = 127, 23  # of a fp32 number's exponent


def columns(width: int, body: Callable[[Expr, int], None]) -> None:
    """`body(column, lanes)` for each vector of a row; the last may be partly padding."""
    whole, rest = divmod(width, LANES)
    if whole:
        with I.serial(0, whole) as k:
            body(k * LANES, LANES)
    if rest:
        body(T.int32(whole * LANES), rest)


def valid(vector: Expr, lanes: int) -> Expr:
    """The vector with zeros in the lanes of padding."""
    return vector if lanes == LANES else v.keep_first(vector, lanes)


def accumulate(cell: Buffer, combine: Callable[[Expr, Expr], Expr], vector: Expr) -> None:
    """Combine a register with a vector of its own type."""
    lanes = int(cell.shape[0])
    v.store(cell, 0, combine(v.load(cell, 0, f"{cell.dtype}x{lanes}"), vector), lanes)


def if_finite(absmax: Expr, value: Expr) -> Expr:
    """`value`; NaN where absmax is NaN or infinite."""
    return I.bind(T.Select(absmax <= T.float32(FLOAT_MAX), value, T.float32(math.nan)))


def add(x: Expr, y: Expr) -> Expr:
    return x + y


@dataclass(frozen=True)
class Absmax:
    """The running absmax of a row, as bits: a larger float has larger bits, NaN the largest."""

    cell: Buffer = field(default_factory=lambda: v.zeros("int32"))

    def include(self, vector: Expr) -> None:
        accumulate(self.cell, T.max, v.magnitude_bits(vector))

    def peak(self) -> Peak:
        return Peak(I.bind(v.fold(self.cell, T.max)))


@dataclass(frozen=True)
class Peak:
    """The absmax of a row, by its bits."""

    bits: Expr

    @property
    def floored(self) -> Expr:
        """At least LEAST_PEAK; NaN stays."""
        least = int(np.float32(e.LEAST_PEAK).view(np.int32))
        return T.reinterpret("float32", T.max(self.bits, T.int32(least)))

    def scale(self) -> Scale:
        """The fixed point of the row: the largest one in which no value has more than 23 bits."""
        found = T.shift_right(self.bits, T.int32(_EXPONENT_BIT)) - T.int32(_BIAS - 1)
        exponent = I.bind(T.max(found, T.int32(e.LEAST_EXPONENT)) - T.int32(e.FIXED_BITS))
        down = if_finite(T.reinterpret("float32", self.bits), _power_of_two(exponent))
        return Scale(I.bind(_power_of_two(-exponent)), down)


def _power_of_two(exponent: Expr) -> Expr:
    biased = T.shift_left(exponent + T.int32(_BIAS), T.int32(_EXPONENT_BIT))
    return T.reinterpret("float32", biased)


@dataclass(frozen=True)
class Scale:
    """Factors from fp32 to fixed point and back; the latter is NaN if the row is not finite."""

    up: Expr
    down: Expr

    def fixed(self, vector: Expr) -> Expr:
        return I.bind(v.to_int(vector * v.splat(self.up)))


@dataclass(frozen=True)
class Squares:
    """The sum of a row's squares in fixed point."""

    scale: Scale
    cell: Buffer = field(default_factory=lambda: v.zeros("uint64", LANES // 2))

    def include(self, vector: Expr) -> None:
        """Even and odd lanes go to the same sums: integers have no order."""
        pairs = I.bind(T.reinterpret(v.LONGS, self.scale.fixed(v.absolute(vector))))
        even = I.bind(T.bitwise_and(pairs, v.splat_long(0xFFFFFFFF)))
        odd = I.bind(T.shift_right(pairs, v.splat_long(32)))
        accumulate(self.cell, add, even * even + odd * odd)

    def mean(self, width: int) -> Expr:
        total = T.Cast("float32", T.Cast("int64", v.fold(self.cell, add)))
        return I.bind(total * self.scale.down * self.scale.down / T.float32(width))


@dataclass(frozen=True)
class Sum:
    """The sum of a row in fixed point."""

    scale: Scale
    cell: Buffer = field(default_factory=lambda: v.zeros("int64"))

    def include(self, vector: Expr) -> None:
        accumulate(self.cell, add, T.Cast(f"int64x{LANES}", self.scale.fixed(vector)))

    def mean(self, width: int) -> Expr:
        total = T.Cast("float32", v.fold(self.cell, add))
        return I.bind(total / T.float32(width) * self.scale.down)


def rstd(mean_square: Expr, eps: float) -> Expr:
    """`1 / sqrt(mean_square + eps)`."""
    return I.bind(T.float32(1) / v.square_root(mean_square + T.float32(eps), "float32"))
