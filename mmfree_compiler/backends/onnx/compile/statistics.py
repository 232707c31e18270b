"""What norms and quantizers know of a row: exact sums in fixed point, and 1/rms.

A row's fixed-point numbers are integers of at most 2^23 in float64. Squares of BLOCK of them are
summed exactly there, the sums of blocks in int64.
"""

from __future__ import annotations

from onnx import TensorProto

from mmfree_compiler.backends.onnx.compile.graph import Graph
from mmfree_compiler.backends.onnx.compile.powers import Powers
from mmfree_compiler.backends.onnx.layouts import BLOCK

LAST = (-1,)


def mean_square(g: Graph, powers: Powers, x: str, columns: int, shape: tuple[int, ...]) -> str:
    """The mean of the squares of `columns` numbers.

    `shape` is that of x in the graph, 0 for batch and time; what it has more than `columns` is 0.
    """
    fixed, unit = _fixed(g, powers, x)
    sums = g("ReduceSumSquare", _in_blocks(g, fixed, shape), LAST, keepdims=0)
    total = g("ReduceSum", g("Cast", sums, to=TensorProto.INT64), LAST)
    total = g("Cast", total, to=TensorProto.FLOAT)
    whole = g("Cast", g("ReduceSum", sums, LAST), to=TensorProto.FLOAT)
    total = g("Add", total, g("Sub", whole, whole))  # NaN if the row holds NaN or infinity
    return g("Div", g("Mul", g("Mul", total, unit), unit), float(columns))


def mean(g: Graph, powers: Powers, x: str, columns: int) -> str:
    """The mean of a row."""
    fixed, unit = _fixed(g, powers, x)
    total = finite_or_nan(g, g("Cast", g("ReduceSum", fixed, LAST), to=TensorProto.FLOAT))
    return g("Mul", g("Div", total, float(columns)), unit)


def rstd(g: Graph, mean_square: str, eps: float) -> str:
    """1 / sqrt(mean_square + eps). ONNX Runtime would turn x * Div(1, y) into x / y."""
    return g("Reciprocal", g("Sqrt", g("Add", mean_square, float(eps))))


def finite_or_nan(g: Graph, x: str) -> str:
    """x, but NaN for infinity; -0 becomes 0."""
    return g("Add", x, g("Sub", x, x))


def _fixed(g: Graph, powers: Powers, x: str) -> tuple[str, str]:
    """Rows in float64 as integers, and what one of their units is worth.

    ReduceMax does not see every NaN: the integers keep them.
    """
    unit = powers.unit(g, g("ReduceMax", g("Abs", x), LAST))
    scaled = g("Round", g("Mul", x, g("Reciprocal", unit)))
    return g("Cast", scaled, to=TensorProto.DOUBLE), unit


def _in_blocks(g: Graph, x: str, shape: tuple[int, ...]) -> str:
    """(..., K) -> (..., blocks, BLOCK), or one block of K if that is fewer; zeros fill the last."""
    *leading, columns = shape
    size = min(columns, BLOCK)
    missing = -columns % size
    if missing:
        x = g("Pad", x, (0,) * (2 * len(shape) - 1) + (missing,))
    return g("Reshape", x, (*leading, (columns + missing) // size, size))
