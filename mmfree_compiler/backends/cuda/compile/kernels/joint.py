"""Reductions of several rows at once, in Gluon: one pass through shared memory, and two barriers.

A row is a block of a power of two in `row_layout`. What is reduced has the same sum, or the same
maximum, in any order.
"""

from __future__ import annotations

from triton.experimental import gluon
from triton.experimental.gluon import language as gl


@gluon.constexpr_function
def row_layout(warps: int) -> gl.BlockedLayout:
    """Four adjacent floats in a thread: loads of 16 bytes."""
    return gl.BlockedLayout([4], [32], [warps], [0])


@gluon.jit
def most(rows: gl.tuple) -> gl.tuple:
    """The largest of each row of int32; of up to five rows at once."""
    COUNT: gl.constexpr = len(rows)
    if COUNT == 1:
        found = (gl.max(rows[0], 0),)
    elif COUNT == 2:
        found = gl.reduce(rows, 0, _most2)
    elif COUNT == 3:
        found = gl.reduce(rows, 0, _most3)
    elif COUNT == 4:
        found = gl.reduce(rows, 0, _most4)
    elif COUNT == 5:
        found = gl.reduce(rows, 0, _most5)
    else:
        found = most(rows[:5]) + most(rows[5:])
    return found


@gluon.jit
def sums(rows: gl.tuple) -> gl.tuple:
    """The sum of each row of integers; of up to three rows at once."""
    COUNT: gl.constexpr = len(rows)
    if COUNT == 1:
        found = (gl.sum(rows[0], 0),)
    elif COUNT == 2:
        found = gl.reduce(rows, 0, _sum2)
    elif COUNT == 3:
        found = gl.reduce(rows, 0, _sum3)
    else:
        found = sums(rows[:3]) + sums(rows[3:])
    return found


# What gl.reduce calls, with tensors that it passes itself: no types would say more.


@gluon.jit
def _most2(a, b, x, y):  # type: ignore[no-untyped-def]  # see above
    return gl.maximum(a, x), gl.maximum(b, y)


@gluon.jit
def _most3(a, b, c, x, y, z):  # type: ignore[no-untyped-def]  # see above
    return gl.maximum(a, x), gl.maximum(b, y), gl.maximum(c, z)


@gluon.jit
def _most4(a, b, c, d, x, y, z, u):  # type: ignore[no-untyped-def]  # see above
    return gl.maximum(a, x), gl.maximum(b, y), gl.maximum(c, z), gl.maximum(d, u)


@gluon.jit
def _most5(a, b, c, d, e, x, y, z, u, v):  # type: ignore[no-untyped-def]  # see above
    pairs = gl.maximum(a, x), gl.maximum(b, y), gl.maximum(c, z), gl.maximum(d, u)
    return pairs[0], pairs[1], pairs[2], pairs[3], gl.maximum(e, v)


@gluon.jit
def _sum2(a, b, x, y):  # type: ignore[no-untyped-def]  # see above
    return a + x, b + y


@gluon.jit
def _sum3(a, b, c, x, y, z):  # type: ignore[no-untyped-def]  # see above
    return a + x, b + y, c + z
