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
LONGS = f"uint64x{LANES // 2}"

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


def splat_long(value: int) -> Expr:
    """The same uint64 in every one of half as many lanes."""
    return T.broadcast(T.uint64(value), LANES // 2)


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


def zeros(dtype: str, count: int = LANES) -> Buffer:
    """A register of zeros, for a running reduction."""
    cell = register(dtype, count)
    clear(cell)
    return cell


def clear(cell: Buffer) -> None:
    """Fill a register with zeros."""
    count = int(cell.shape[0])
    store(cell, 0, T.broadcast(T.Cast(cell.dtype, T.int32(0)), count), count)


def keep_first(vector: Expr, count: int) -> Expr:
    """Lanes from `count` on become zero: the padding of a row never enters a reduction."""
    inside = T.ramp(0, 1, LANES) < T.broadcast(T.int32(count), LANES)
    return T.Select(inside, vector, splat(0.0))


def fold(cell: Buffer, combine: Callable[[Expr, Expr], Expr]) -> Expr:
    """Reduce a register's lanes as a tree: log2(LANES) steps instead of LANES dependent ones."""
    dtype, width = cell.dtype, int(cell.shape[0]) // 2
    while width:
        kind = f"{dtype}x{width}" if width > 1 else dtype
        halves = combine(cell.vload([0], kind), cell.vload([width], kind))
        I.buffer_store(cell, halves, [lanes(0, width) if width > 1 else 0])
        width //= 2
    return I.bind(cell[0])


def rounded(x: Expr, dtype: str = FLOATS) -> Expr:
    """x as a fp32 result of its own.

    TVM's simplifier cancels terms as if floats were exact, `x - x` (NaN of infinity) and
    `(x + c) - c`; LLVM fuses a product and a sum into one rounding. Neither looks through this.
    """
    return I.bind(T.call_llvm_pure_intrin(dtype, "llvm.arithmetic.fence", x))


def add(x: Expr, y: Expr) -> Expr:
    return rounded(x + y)


def subtract(x: Expr, y: Expr) -> Expr:
    return rounded(x - rounded(y))


def multiply(x: Expr, y: Expr) -> Expr:
    return rounded(x * y)


def divide(x: Expr, y: Expr) -> Expr:
    return rounded(x / rounded(y))


def negative(x: Expr) -> Expr:
    return splat(-0.0) - x  # 0 - x would make +0 of +0


def absolute(x: Expr) -> Expr:
    return T.call_llvm_pure_intrin(FLOATS, "llvm.fabs", x)


def magnitude_bits(x: Expr) -> Expr:
    """The bits of |x| as int32, in the order of the magnitudes; those of NaN are the largest."""
    return I.bind(T.bitwise_and(T.reinterpret(INTS, x), splat_int(0x7FFFFFFF)))


def with_sign(x: Expr, y: Expr) -> Expr:
    """|x| with the sign of y."""
    return T.call_llvm_pure_intrin(FLOATS, "llvm.copysign", x, y)


def square_root(x: Expr, dtype: str = FLOATS) -> Expr:
    return T.call_llvm_pure_intrin(dtype, "llvm.sqrt", x)


def maximum(x: Expr, y: Expr) -> Expr:
    """The larger one; NaN if either is NaN, and +0 is larger than -0."""
    return T.call_llvm_pure_intrin(FLOATS, "llvm.maximum", x, y)


def minimum(x: Expr, y: Expr) -> Expr:
    """The smaller one; NaN if either is NaN, and -0 is smaller than +0."""
    return T.call_llvm_pure_intrin(FLOATS, "llvm.minimum", x, y)


def at_least(low: float, x: Expr) -> Expr:
    """x, but `low` where it is less; NaN stays. One instruction, unlike `maximum`."""
    return I.bind(T.Select(x < splat(low), splat(low), x))


def at_most(high: float, x: Expr) -> Expr:
    """x, but `high` where it is more; NaN stays."""
    return I.bind(T.Select(x > splat(high), splat(high), x))


def to_int(x: Expr) -> Expr:
    """The nearest int32, half to even; some number for NaN."""
    return T.call_llvm_pure_intrin(INTS, "llvm.lrint", x)


_INTEGERS = 1.5 * 2.0**23  # fp32 numbers near it are 1 apart, and their bits count up with them


def nearest(x: Expr, plus: int = 0) -> tuple[Expr, Expr]:
    """The nearest integer n, half to even, and an int32 whose low bits are those of n + `plus`.

    |x| and `plus`, which is even, are at most 2^20. NaN stays NaN; its int32 is some number.
    """
    shifted = add(x, splat(_INTEGERS + plus))
    return subtract(shifted, splat(_INTEGERS + plus)), I.bind(T.reinterpret(INTS, shifted))
