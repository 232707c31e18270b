"""What norms and quantizers know of rows: their largest values, exact sums in fixed point, 1/rms.

Rows of several kinds are stacked on the first axis, so that one node does a step for all of them.
"""

from __future__ import annotations

import numpy as np
from onnx import TensorProto

from mmfree_compiler.backends.onnx.compile.graph import Graph, Operand
from mmfree_compiler.backends.onnx.compile.powers import Kinds, Powers
from mmfree_compiler.backends.onnx.layouts import BLOCK
from mmfree_compiler.elementary import CODE_MAX, FIXED_BITS

LAST = (-1,)


def factors(g: Graph, powers: Powers, rows: str, kinds: Kinds) -> tuple[str, str]:
    """The peaks of rows, and what rows are multiplied by before they are rounded.

    Of a fixed row the peak is 2^(e-1), the largest power of two that is not above it, and the
    factor 2^(FIXED_BITS - e); the peak is infinity if the row holds NaN or infinity. Of a coded
    row they are its absmax m and CODE_MAX / m.
    """
    peaks = powers.peaks(g, rows, kinds)
    unit, code = np.float32(2.0 ** (FIXED_BITS - 1)), np.float32(CODE_MAX)
    return peaks, g("Div", kinds.each(unit, code), peaks)


def mean_square(g: Graph, rows: str, factor: str, shape: tuple[int, ...]) -> str:
    """The means of the squares of fixed rows of this shape, 0 for the stack, batch and time.

    The fixed-point numbers are integers of at most 2^23 in float64. Squares of BLOCK of them are
    summed exactly there, the sums of blocks in int64. A row that holds NaN or infinity has the
    factor 0 and the sum 0, or -2^63 as NaN is cast; the root of 0 / 0 and of -2^63 / 0 is NaN.
    """
    fixed = g("Cast", g("Round", g("Mul", rows, factor)), to=TensorProto.DOUBLE)
    sums = g("ReduceSumSquare", _in_blocks(g, fixed, shape), LAST, keepdims=0)
    total = g("ReduceSum", g("Cast", sums, to=TensorProto.INT64), LAST)
    total = g("Cast", total, to=TensorProto.FLOAT)
    return g("Div", g("Div", g("Div", total, factor), factor), float(shape[-1]))


def mean(g: Graph, powers: Powers, x: str, columns: int) -> str:
    """The mean of a row. Its fixed-point numbers are in float64, which keeps NaN."""
    _, factor = factors(g, powers, x, Kinds(fixed=1))
    fixed = g("Cast", g("Round", g("Mul", x, factor)), to=TensorProto.DOUBLE)
    total = g("Cast", g("ReduceSum", fixed, LAST), to=TensorProto.FLOAT)
    total = g("Add", total, g("Sub", total, total))  # -0 becomes 0
    return g("Div", g("Div", total, float(columns)), factor)


def rstd(g: Graph, mean_square: str, eps: float) -> str:
    """1 / sqrt(mean_square + eps). ONNX Runtime would turn x * Div(1, y) into x / y."""
    return g("Reciprocal", g("Sqrt", g("Add", mean_square, float(eps))))


def finite_or_nan(g: Graph, x: Operand) -> str:
    """x, but NaN for infinity: the remainder of a division by infinity."""
    return g("Mod", x, np.float32(np.inf), fmod=1)


def _in_blocks(g: Graph, x: str, shape: tuple[int, ...]) -> str:
    """(..., K) -> (..., blocks, BLOCK), or one block of K if that is fewer; zeros fill the last."""
    *leading, columns = shape
    size = min(columns, BLOCK)
    missing = -columns % size
    if missing:
        x = g("Pad", x, (0,) * (2 * len(shape) - 1) + (missing,))
    return g("Reshape", x, (*leading, (columns + missing) // size, size))
