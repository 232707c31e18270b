"""Ops that need a token's whole row, in the table ROWS: norms and quantizers.

Codes come out as products.py takes them: spread over blocks, in float32, with their sentinels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from mmfree_compiler.backends.onnx.compile.functions import silu
from mmfree_compiler.backends.onnx.compile.graph import Array
from mmfree_compiler.backends.onnx.compile.powers import Kinds
from mmfree_compiler.backends.onnx.compile.scope import Scope
from mmfree_compiler.backends.onnx.compile.statistics import (
    LAST,
    factors,
    finite_or_nan,
    mean,
    mean_square,
    rstd,
)
from mmfree_compiler.backends.onnx.layouts import BLOCK, COLUMNS, Spacing
from mmfree_compiler.elementary import CODE_MAX, codes_per_unit
from mmfree_compiler.program import Node

Made = tuple[str, ...]


def _rms_norm(s: Scope, node: Node) -> Made:
    x, weight = node.inputs
    return (_normed(s, x, weight, _eps(node, "eps")),)


def _gated_norm(s: Scope, node: Node) -> Made:
    gate, h, weight = node.inputs
    normed = _normed(s, gate, weight, _eps(node, "eps"))
    return (s.graph("Mul", normed, silu(s.graph, s.powers, s[h])),)


def _normed(s: Scope, x: str | None, weight: str | None, eps: float) -> str:
    g = s.graph
    _, factor = factors(g, s.powers, s[x], Kinds(fixed=1))
    r = rstd(g, mean_square(g, s[x], factor, (0, 0, s.width(x))), eps)
    return g("Mul", g("Mul", s[x], r), s[weight])


def _center(s: Scope, node: Node) -> Made:
    (x,) = node.inputs
    g, columns = s.graph, s.width(x)
    deviations = g("Sub", s[x], mean(g, s.powers, s[x], columns))
    return (g("Sub", deviations, mean(g, s.powers, deviations, columns)),)


def _quantize(s: Scope, node: Node) -> Made:
    (x,) = node.inputs
    peaks, inverse = factors(s.graph, s.powers, s[x], Kinds(coded=1))
    codes, scale = _codes(s, node, s[x], peaks, inverse, 1.0)
    return _spread(s, codes, s.width(x)), scale


def _norm_quant(s: Scope, node: Node) -> Made:
    """One stack of x, u = x * outer if there is an outer norm, and x or u times each inner weight.

    All steps are done for all rows, also where few need them: taking rows apart would cost nodes.
    """
    x, outer, *inners = node.inputs
    g, columns = s.graph, s.width(x)
    kinds = Kinds(1 if outer is None else 2, len(inners))
    one, weights, rows = np.ones(columns, np.float32), [s.row(name) for name in inners], s[x]
    if outer is not None:
        outers = [s.row(outer)] * (len(inners) + 1)
        rows = g("Mul", rows, s.given("outer", _stacked([one, *outers])))
    rows = g("Mul", rows, s.given("inners", _stacked([one] * kinds.fixed + weights)))
    peaks, factor = factors(g, s.powers, rows, kinds)
    squares = mean_square(g, rows, factor, (0, 0, 0, columns))
    before, *after = (g("Gather", squares, np.int64(k), axis=0) for k in range(kinds.fixed))
    inner_eps = _eps(node, "inner_eps")
    r = _rstd_of_both(s, before, after[0], node) if after else rstd(g, before, inner_eps)
    codes, scale = _codes(s, node, rows, peaks, factor, r)
    made: list[str] = []
    for k in range(kinds.fixed, kinds.fixed + kinds.coded):
        row, of_row = (g("Gather", both, np.int64(k), axis=0) for both in (codes, scale))
        made += [_spread(s, row, columns), of_row]
    return tuple(made)


def _stacked(weights: Sequence[Array]) -> Array:
    """(K,) each -> (rows, 1, 1, K)."""
    return np.stack(weights)[:, None, None]


def _rstd_of_both(s: Scope, before: str, after: str, node: Node) -> str:
    """From the mean squares before and after the outer norm's weight, (batch, time, 1)."""
    g = s.graph
    outer = rstd(g, before, _eps(node, "outer_eps"))
    normed = finite_or_nan(g, g("Mul", g("Mul", outer, outer), after))
    inner = rstd(g, normed, _eps(node, "inner_eps"))
    return g("Where", g("Equal", outer, 0.0), outer, g("Mul", outer, inner))


def _codes(s: Scope, node: Node, rows: str, peaks: str, inverse: str, r: str | float) -> Made:
    """Codes and scales of coded rows with the factor r; of other rows in the stack, anything.

    Codes are not clamped: v * (127 / max|v|) is below 127.5, and so are codes of tiny rows.
    """
    g, eps = s.graph, np.float32(_eps(node, "quant_eps"))
    by_eps = codes_per_unit(float(eps))
    absmax = finite_or_nan(g, peaks if isinstance(r, float) else g("Mul", peaks, r))
    tiny = g("Less", absmax, eps)
    inverse = g("Where", tiny, by_eps if isinstance(r, float) else g("Mul", r, by_eps), inverse)
    codes = g("Round", g("Mul", rows, inverse))
    scale = g("Div", g("Where", tiny, eps, absmax), float(CODE_MAX))
    return codes, scale


def _spread(s: Scope, codes: str, columns: int) -> str:
    """Codes (batch, time, columns) in blocks with sentinels. The rest is kept in `s.rests`."""
    g, spacing, sentinel = s.graph, Spacing.of(columns), float(CODE_MAX)
    if spacing.replace:
        s.rests.append(g("Slice", codes, (COLUMNS,), (columns,), LAST, (BLOCK,)))
        return g("Where", spacing.is_sentinel, sentinel, codes)
    if spacing.missing:
        codes = g("Pad", codes, (0, 0, 0, 0, 0, spacing.missing))
    codes = g("Reshape", codes, (0, 0, spacing.segments, spacing.width))
    codes = g("Pad", codes, (0, 0, 0, 0, 0, 0, 0, spacing.sentinels), sentinel)
    return g("Reshape", codes, (0, 0, spacing.stored))


def _eps(node: Node, name: str) -> float:
    return float(str(node.attrs[name]))


ROWS: dict[str, Callable[[Scope, Node], Made]] = {
    "center": _center,
    "gated_norm": _gated_norm,
    "norm_quant": _norm_quant,
    "quantize": _quantize,
    "rms_norm": _rms_norm,
}
