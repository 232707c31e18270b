"""Sixteen-lane fp32 arithmetic in TIR, from which the CPU kernels are built.

Sixteen lanes are one AVX-512 register, two AVX2 ones, four of SSE2 or NEON; LLVM splits them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tvm.script import tirx as T
from tvm.tirx.script.builder import ir as I

LANES = 16
FLOATS = f"float32x{LANES}"
INTS = f"int32x{LANES}"

Expr = Any  # a TIR expression: tvm.tirx has no public static type for one
Buffer = Any


def splat(value: float | Expr) -> Expr:
    """The same fp32 in every lane."""
    scalar = T.float32(value) if isinstance(value, (int, float)) else value
    return T.broadcast(scalar, LANES)


def splat_int(value: int | Expr) -> Expr:
    """The same int32 in every lane."""
    scalar = T.int32(value) if isinstance(value, int) else value
    return T.broadcast(scalar, LANES)


def lanes(offset: Expr, count: int = LANES) -> Expr:
    """The index of `count` consecutive elements."""
    return T.ramp(offset, 1, count)


def load(buffer: Buffer, offset: Expr, dtype: str = FLOATS) -> Expr:
    """Consecutive elements, as a vector."""
    return buffer.vload([offset], dtype)


def store(buffer: Buffer, offset: Expr, vector: Expr, count: int = LANES) -> None:
    """Write a vector to consecutive elements."""
    I.buffer_store(buffer, vector, [lanes(offset, count)])


def register(dtype: str = "float32", lanes_: int = LANES) -> Buffer:
    """A small array that LLVM keeps in registers ("global" scope stays on the stack in TVM)."""
    return I.alloc_buffer((lanes_,), dtype, scope="global")


def cut(vector: Expr) -> Expr:
    """The same vector, read back from a register.

    TVM's simplifier looks through let bindings, which takes exponential time for a chain of ops
    with clamps in them. It does not look through loads.
    """
    cell = register()
    store(cell, 0, vector)
    return load(cell, 0)


def accumulator(initial: float) -> Buffer:
    """A register that holds a running reduction."""
    cell = register()
    store(cell, 0, splat(initial))
    return cell


def keep_first(vector: Expr, count: int) -> Expr:
    """Lanes from `count` on become zero: the padding of a row never enters a reduction."""
    inside = T.ramp(0, 1, LANES) < T.broadcast(T.int32(count), LANES)
    return T.Select(inside, vector, splat(0.0))


def fold(cell: Buffer, combine: Callable[[Expr, Expr], Expr], dtype: str = "float32") -> Expr:
    """Reduce a register's lanes as a tree: log2(LANES) steps instead of LANES dependent ones."""
    width = LANES // 2
    while width:
        kind = f"{dtype}x{width}" if width > 1 else dtype
        halves = combine(cell.vload([0], kind), cell.vload([width], kind))
        I.buffer_store(cell, halves, [lanes(0, width) if width > 1 else 0])
        width //= 2
    return I.bind(cell[0])


def absolute(x: Expr) -> Expr:
    return T.call_llvm_pure_intrin(FLOATS, "llvm.fabs", x)


def round_half_even(x: Expr) -> Expr:
    return T.call_llvm_pure_intrin(FLOATS, "llvm.rint", x)


def square_root(x: Expr, dtype: str = FLOATS) -> Expr:
    return T.call_llvm_pure_intrin(dtype, "llvm.sqrt", x)


def maximum(x: Expr, y: Expr) -> Expr:
    return T.max(x, y)


def minimum(x: Expr, y: Expr) -> Expr:
    return T.min(x, y)


# Coefficients of Cephes' expf (S. Moshier): e^r on |r| <= ln(2)/2, relative error below 2e-7.
_EXP = (1.9875691500e-4, 1.3981999507e-3, 8.3334519073e-3, 4.1665795894e-2, 1.6666665459e-1, 0.5)
_LOG2_E, _LN2_HIGH, _LN2_LOW = 1.44269504088896341, 0.693359375, -2.12194440e-4
_EXP_MIN, _EXP_MAX = -87.33654, 88.37626  # results stay normal fp32 numbers


def exp(x: Expr) -> Expr:
    """e^x, clamped to the normal range: 2^n * e^r with n = round(x / ln 2)."""
    x = I.bind(minimum(maximum(x, splat(_EXP_MIN)), splat(_EXP_MAX)))
    n = I.bind(round_half_even(x * splat(_LOG2_E)))
    r = I.bind(x - n * splat(_LN2_HIGH) - n * splat(_LN2_LOW))
    tail = splat(_EXP[0])
    for coefficient in _EXP[1:]:
        tail = tail * r + splat(coefficient)
    mantissa = tail * r * r + r + splat(1.0)
    exponent = T.shift_left(T.Cast(INTS, n) + splat_int(127), splat_int(23))
    return I.bind(mantissa * T.reinterpret(FLOATS, exponent))


def sigmoid(x: Expr) -> Expr:
    return I.bind(splat(1.0) / (splat(1.0) + exp(splat(0.0) - x)))


def silu(x: Expr) -> Expr:
    return I.bind(x * sigmoid(x))


def tanh(x: Expr) -> Expr:
    """`2 * sigmoid(2x) - 1`; near zero, where that cancels, the odd Taylor terms to x^7."""
    wide = splat(2.0) * sigmoid(x + x) - splat(1.0)
    s = I.bind(x * x)
    near = x * (splat(1.0) + s * (splat(-1 / 3) + s * (splat(2 / 15) + s * splat(-17 / 315))))
    return I.bind(T.Select(absolute(x) < splat(0.1), near, wide))
