"""Ops that need a token's whole row, in the table ROWS: norms and quantizers.

Codes come out as products.py takes them: spread over blocks, in float32, with their sentinels.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from mmfree_compiler.backends.onnx.compile.functions import silu
from mmfree_compiler.backends.onnx.compile.scope import Scope
from mmfree_compiler.backends.onnx.compile.statistics import (
    LAST,
    finite_or_nan,
    mean,
    mean_square,
    rstd,
)
from mmfree_compiler.backends.onnx.layouts import BLOCK, COLUMNS, blocks, sentinels, spread
from mmfree_compiler.elementary import CODE_MAX, LEAST_PEAK, codes_per_unit
from mmfree_compiler.program import Node

Made = tuple[str, ...]


def _rms_norm(s: Scope, node: Node) -> Made:
    x, weight = node.inputs
    return (_normed(s, x, weight, float(str(node.attrs["eps"]))),)


def _gated_norm(s: Scope, node: Node) -> Made:
    gate, h, weight = node.inputs
    normed = _normed(s, gate, weight, float(str(node.attrs["eps"])))
    return (s.graph("Mul", normed, silu(s.graph, s.powers, s[h])),)


def _normed(s: Scope, x: str | None, weight: str | None, eps: float) -> str:
    columns = s.width(x)
    r = rstd(s.graph, mean_square(s.graph, s.powers, s[x], columns, (0, 0, columns)), eps)
    return s.graph("Mul", s.graph("Mul", s[x], r), s[weight])


def _center(s: Scope, node: Node) -> Made:
    (x,) = node.inputs
    g, columns = s.graph, s.width(x)
    deviations = g("Sub", s[x], mean(g, s.powers, s[x], columns))
    return (g("Sub", deviations, mean(g, s.powers, deviations, columns)),)


def _quantize(s: Scope, node: Node) -> Made:
    (x,) = node.inputs
    g = s.graph
    row = _spread(s, x)
    peak = g("ReduceMax", g("Abs", row), LAST)
    is_nan = g("ReduceSum", g("Sub", row, row), LAST)  # ReduceMax does not see every NaN
    return _codes(s, x, row, g("Add", peak, is_nan), 1.0, node, groups=1)


def _norm_quant(s: Scope, node: Node) -> Made:
    """Rows of all groups together: (batch, time, groups, width)."""
    x, outer, *inners = node.inputs
    g, row = s.graph, _spread(s, x)
    s.sizes["columns"] = s.width(x)
    if outer is None:
        r = rstd(g, _mean_square(s, x, row, 1), _eps(node, "inner_eps"))
    else:
        normed = g("Mul", row, s.given("outer", spread(s.row(outer))))
        both = _mean_square(s, x, g("Concat", row, normed, axis=-2), 2)
        r, row = _rstd_of_both(s, both, node), normed
    weights = spread(np.stack([s.row(name) for name in inners]))
    scaled = g("Mul", row, s.given("inners", weights))
    peak = g("ReduceMax", g("Abs", scaled), LAST)
    return _codes(s, x, scaled, peak, r, node, groups=len(inners))


def _mean_square(s: Scope, x: str | None, rows: str, groups: int) -> str:
    columns = s.width(x)
    shape = (0, 0, groups, blocks(columns) * BLOCK)
    return mean_square(s.graph, s.powers, rows, columns, shape)


def _rstd_of_both(s: Scope, both: str, node: Node) -> str:
    """`both` (batch, time, 2, 1): the mean squares before and after the outer norm's weight."""
    g = s.graph
    before, after = g.many("Split", 2, both, axis=-2, num_outputs=2)
    outer = rstd(g, before, _eps(node, "outer_eps"))
    normed = finite_or_nan(g, g("Mul", g("Mul", outer, outer), after))
    inner = rstd(g, normed, _eps(node, "inner_eps"))
    return g("Where", g("Equal", outer, 0.0), outer, g("Mul", outer, inner))


def _codes(
    s: Scope, x: str | None, rows: str, peak: str, r: str | float, node: Node, groups: int
) -> Made:
    """[codes, scale] of each group: `rows` (batch, time, groups, width), their absmax, the factor.

    Codes are not clamped: v * (127 / max|v|) is below 127.5, and so are codes of tiny rows.
    """
    g, eps = s.graph, np.float32(_eps(node, "quant_eps"))
    peak = g("Max", peak, LEAST_PEAK)
    absmax = finite_or_nan(g, g("Mul", peak, r))
    tiny = g("Less", absmax, eps)
    by_eps = (
        g("Mul", r, codes_per_unit(float(eps)))
        if isinstance(r, str)
        else codes_per_unit(float(eps))
    )
    inverse = g("Where", tiny, by_eps, g("Div", float(CODE_MAX), peak))
    codes = g("Round", g("Mul", rows, inverse))
    codes = g("Add", codes, sentinels(s.width(x)))
    scale = g("Div", g("Where", tiny, eps, absmax), float(CODE_MAX))
    indices = [np.int64(index) for index in range(groups)]
    return tuple(g("Gather", both, i, axis=2) for i in indices for both in (codes, scale))


def _spread(s: Scope, x: str | None) -> str:
    """A row in blocks with zeros at the sentinels: (batch, time, 1, blocks * BLOCK)."""
    g, columns = s.graph, s.width(x)
    count, row = blocks(columns), s[x]
    missing = count * COLUMNS - columns
    if missing:
        row = g("Pad", row, (0, 0, 0, 0, 0, missing))
    row = g("Reshape", row, (0, 0, count, COLUMNS))
    row = g("Pad", row, (0, 0, 0, 0, 0, 0, 0, 1))
    return g("Reshape", row, (0, 0, 1, count * BLOCK))


def _eps(node: Node, name: str) -> float:
    return float(str(node.attrs[name]))


ROWS: dict[str, Callable[[Scope, Node], Made]] = {
    "center": _center,
    "gated_norm": _gated_norm,
    "norm_quant": _norm_quant,
    "quantize": _quantize,
    "rms_norm": _rms_norm,
}
