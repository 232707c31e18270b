"""Ops that need a token's whole row: norms and quantizers. One emitter per op, in the table ROWS.

Codes do not depend on the norm's 1/rms (docs/arithmetic.md): one pass over the row finds its
absmaxes, a second writes the codes and sums the squares, and 1/rms enters the scale alone. A row
that holds NaN or infinity has an absmax that is not finite, and everything made of that is NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tvm.script import tirx as T
from tvm.tirx.script.builder import ir as I

from mmfree_compiler.backends.cpu.compile import functions
from mmfree_compiler.backends.cpu.compile import vector as v
from mmfree_compiler.backends.cpu.compile.codes import Codes
from mmfree_compiler.backends.cpu.compile.memory import Memory, Place
from mmfree_compiler.backends.cpu.compile.reductions import (
    Absmax,
    Peak,
    Row,
    Squares,
    Sum,
    columns,
    if_finite,
    rstd,
    valid,
)
from mmfree_compiler.backends.cpu.compile.vector import Expr
from mmfree_compiler.program import Node


def _input(memory: Memory, name: str | None, place: Place) -> Row:
    assert name is not None
    return lambda column: memory.load(name, place, column)


def _weight(memory: Memory, name: str | None, place: Place) -> Row:
    assert name is not None
    return lambda column: memory.floats(name, place.layer, column)


def _times(row: Row, weight: Row) -> Row:
    return lambda column: v.multiply(row(column), weight(column))


def _peaks(rows: Sequence[Row], width: int) -> list[Peak]:
    """The absmax of each row, in one pass."""
    found = [Absmax() for _ in rows]

    def include(column: Expr, lanes: int) -> None:
        for absmax, row in zip(found, rows, strict=True):
            absmax.include(valid(row(column), lanes))

    columns(width, include)
    return [absmax.peak() for absmax in found]


def _center(memory: Memory, place: Place, node: Node) -> None:
    """`x - mean(x)`, then less the mean of that: see ops/center.py."""
    out = node.outputs[0]
    width = memory.width(out)
    row = _centered(_centered(_input(memory, node.inputs[0], place), width), width)
    _write(memory, place, out, row)


def _centered(row: Row, width: int) -> Row:
    total = Sum(_peaks([row], width)[0].scale())
    columns(width, lambda column, lanes: total.include(valid(row(column), lanes)))
    mean = v.splat(total.mean(width))
    return lambda column: v.subtract(row(column), mean)


def _write(memory: Memory, place: Place, out: str, row: Row) -> None:
    def write(column: Expr, lanes: int) -> None:
        memory.store(out, place, column, valid(row(column), lanes))

    columns(memory.width(out), write)


def _rms_norm(memory: Memory, place: Place, node: Node) -> None:
    x, weight = node.inputs[:2]
    _write(memory, place, node.outputs[0], _normed(memory, place, node, x, weight))


def _gated_norm(memory: Memory, place: Place, node: Node) -> None:
    g, h, weight = node.inputs
    normed, gate = _normed(memory, place, node, g, weight), _input(memory, h, place)
    row = _times(normed, lambda column: functions.silu(I.bind(gate(column))))
    _write(memory, place, node.outputs[0], row)


def _normed(memory: Memory, place: Place, node: Node, x: str | None, weight: str | None) -> Row:
    """`(x * r) * weight`."""
    row, width = _input(memory, x, place), memory.width(node.outputs[0])
    squares = Squares(_peaks([row], width)[0].scale())
    columns(width, lambda column, lanes: squares.include(valid(row(column), lanes)))
    inverse = v.splat(rstd(squares.mean(width), _float(node, "eps")))
    return _times(lambda column: v.multiply(row(column), inverse), _weight(memory, weight, place))


def _quantize(memory: Memory, place: Place, node: Node) -> None:
    row, quant_eps = _input(memory, node.inputs[0], place), _float(node, "quant_eps")
    codes, scale = node.outputs
    (peak,) = _peaks([row], memory.width(codes))
    codes_of_row = Codes(memory, place, codes, scale, row, peak, quant_eps)
    columns(memory.width(codes), codes_of_row.writer())
    codes_of_row.finish(T.float32(1))


def _norm_quant(memory: Memory, place: Place, node: Node) -> None:
    x, outer, *inners = node.inputs
    width, quant_eps = memory.width(node.outputs[0]), _float(node, "quant_eps")
    source = _input(memory, x, place)
    row = source if outer is None else _times(source, _weight(memory, outer, place))
    scaled = [_times(row, _weight(memory, inner, place)) for inner in inners]
    normed = [row] if outer is None else [source, row]
    peaks = _peaks([*normed, *scaled], width)
    squares = [Squares(peak.scale()) for peak in peaks[: len(normed)]]
    found = [
        Codes(memory, place, codes, scale, of, peak, quant_eps)
        for codes, scale, of, peak in zip(
            node.outputs[::2], node.outputs[1::2], scaled, peaks[len(normed) :], strict=True
        )
    ]
    writers = [codes.writer() for codes in found]

    def body(column: Expr, lanes: int) -> None:
        for square, of in zip(squares, normed, strict=True):
            square.include(valid(of(column), lanes))
        for write in writers:
            write(column, lanes)

    columns(width, body)
    inverse = _inverse(node, [square.mean(width) for square in squares])
    for codes in found:
        codes.finish(inverse)


def _inverse(node: Node, means: Sequence[Expr]) -> Expr:
    """1/rms of one norm, or of a norm after a norm: see ops/norm_quant.py."""
    inner_eps = _float(node, "inner_eps")
    if len(means) == 1:
        return rstd(means[0], inner_eps)
    before, after = means
    outer = rstd(before, _float(node, "outer_eps"))
    normed = v.rounded(outer * outer * after, "float32")
    inner = rstd(if_finite(normed, normed), inner_eps)
    return I.bind(T.Select(outer == T.float32(0), outer, outer * inner))


def _float(node: Node, name: str) -> float:
    value = node.attrs[name]
    assert isinstance(value, (int, float))
    return float(value)


ROWS: dict[str, Callable[[Memory, Place, Node], None]] = {
    "center": _center,
    "gated_norm": _gated_norm,
    "norm_quant": _norm_quant,
    "quantize": _quantize,
    "rms_norm": _rms_norm,
}
