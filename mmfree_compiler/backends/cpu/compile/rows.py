"""Ops that need a token's whole row: norms and quantizers. One emitter per op, in the table ROWS.

Codes do not depend on the norm's 1/rms (numerics 5): one pass over the row gives its sum of squares
and its absmax, a second writes the codes. 1/rms enters the scale only. A row that holds NaN or
infinity has an absmax that is not finite, and everything made of that is NaN.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from tvm.script import tirx as T
from tvm.tirx.script.builder import ir as I

from mmfree_compiler.backends.cpu.compile import functions
from mmfree_compiler.backends.cpu.compile import vector as v
from mmfree_compiler.backends.cpu.compile.memory import SUM, Memory, Place
from mmfree_compiler.backends.cpu.compile.vector import LANES, Buffer, Expr
from mmfree_compiler.backends.cpu.strides import round_up
from mmfree_compiler.program import Node

Row = Callable[[Expr], Expr]  # column -> 16 floats of a row

CODE_MAX = 127.0
FLOAT_MAX = 3.4028234e38


def _columns(width: int, body: Callable[[Expr, int], None]) -> None:
    """`body(column, lanes)` for each vector of a row; the last may be partly padding."""
    whole, rest = divmod(width, LANES)
    if whole:
        with I.serial(0, whole) as k:
            body(k * LANES, LANES)
    if rest:
        body(T.int32(whole * LANES), rest)


def _valid(vector: Expr, lanes: int) -> Expr:
    return vector if lanes == LANES else v.keep_first(vector, lanes)


def _input(memory: Memory, name: str | None, place: Place) -> Row:
    assert name is not None
    return lambda column: memory.load(name, place, column)


def _weight(memory: Memory, name: str | None, place: Place) -> Row:
    assert name is not None
    return lambda column: memory.floats(name, place.layer, column)


def _accumulate(
    cell: Buffer, combine: Callable[[Expr, Expr], Expr], vector: Expr, dtype: str = v.FLOATS
) -> None:
    v.store(cell, 0, combine(v.load(cell, 0, dtype), vector))


@dataclass(frozen=True)
class _Absmax:
    """The largest magnitude of a row, as bits: a larger float has larger bits, NaN the largest."""

    cell: Buffer = field(default_factory=lambda: v.zeros("int32"))

    def include(self, vector: Expr) -> None:
        _accumulate(self.cell, T.max, v.magnitude_bits(vector), v.INTS)

    def value(self) -> Expr:
        return I.bind(T.reinterpret("float32", v.fold(self.cell, T.max, "int32")))


def _if_finite(absmax: Expr, value: Expr) -> Expr:
    return I.bind(T.Select(absmax <= T.float32(FLOAT_MAX), value, T.float32(math.nan)))


def _inverse_rms(total: Expr, width: int, eps: float) -> Expr:
    mean = total / T.float32(width)
    return I.bind(T.float32(1) / v.square_root(mean + T.float32(eps), "float32"))


def _add(x: Expr, y: Expr) -> Expr:
    return x + y


def _center(memory: Memory, place: Place, node: Node) -> None:
    """`x - mean(x)`, then less the mean of that: see ops/center.py."""
    out = node.outputs[0]
    width = memory.width(out)
    row = _centered(_input(memory, node.inputs[0], place), width)
    row = _centered(row, width)
    _columns(
        width, lambda column, lanes: memory.store(out, place, column, _valid(row(column), lanes))
    )


def _centered(row: Row, width: int) -> Row:
    total = v.zeros()

    def add(column: Expr, lanes: int) -> None:
        _accumulate(total, _add, _valid(row(column), lanes) * v.splat(1 / width))

    _columns(width, add)
    mean = v.splat(v.fold(total, _add))
    return lambda column: v.subtract(row(column), mean)


def _rms_norm(memory: Memory, place: Place, node: Node) -> None:
    x, weight = node.inputs[:2]
    _write_norm(memory, place, node, _input(memory, x, place), _weight(memory, weight, place), None)


def _gated_norm(memory: Memory, place: Place, node: Node) -> None:
    g, h, weight = node.inputs
    row, gate = _input(memory, g, place), _input(memory, h, place)
    _write_norm(memory, place, node, row, _weight(memory, weight, place), gate)


def _write_norm(
    memory: Memory, place: Place, node: Node, row: Row, weight: Row, gate: Row | None
) -> None:
    """`rms_norm(row) * weight`, times `silu(gate)` when there is a gate."""
    out = node.outputs[0]
    width = memory.width(out)
    squares, absmax = v.zeros(), _Absmax()

    def measure(column: Expr, lanes: int) -> None:
        x = I.bind(_valid(row(column), lanes))
        _accumulate(squares, _add, x * x)
        absmax.include(x)

    _columns(width, measure)
    inverse = _inverse_rms(v.fold(squares, _add), width, _float(node, "eps"))
    inverse = _if_finite(absmax.value(), inverse)

    def write(column: Expr, lanes: int) -> None:
        y = row(column) * v.splat(inverse) * weight(column)
        if gate is not None:
            y = y * functions.silu(I.bind(gate(column)))
        memory.store(out, place, column, _valid(y, lanes))

    _columns(width, write)


def _quantize(memory: Memory, place: Place, node: Node) -> None:
    row = _input(memory, node.inputs[0], place)
    codes, scale = node.outputs
    absmax = _Absmax()
    _columns(memory.width(codes), lambda column, lanes: absmax.include(_valid(row(column), lanes)))
    _write_codes(memory, place, (codes, scale), row, absmax.value(), T.float32(1), node)


def _norm_quant(memory: Memory, place: Place, node: Node) -> None:
    """One reduction for all groups: sums of squares before and after the outer norm, absmaxes."""
    x, outer, *inners = node.inputs
    width = memory.width(node.outputs[0])
    source = _input(memory, x, place)
    weights = [_weight(memory, inner, place) for inner in inners]
    gain = None if outer is None else _weight(memory, outer, place)
    before, after = v.zeros(), v.zeros()
    peaks = [_Absmax() for _ in inners]

    def row(column: Expr) -> Expr:
        return source(column) if gain is None else source(column) * gain(column)

    def body(column: Expr, lanes: int) -> None:
        raw = I.bind(_valid(source(column), lanes))
        if gain is not None:
            _accumulate(before, _add, raw * raw)
        x = raw if gain is None else I.bind(raw * gain(column))
        _accumulate(after, _add, x * x)
        for inner, weight in zip(peaks, weights, strict=True):
            inner.include(x * weight(column))

    _columns(width, body)
    inverse = _combined_inverse(node, before, after, width)
    for i, (inner, weight) in enumerate(zip(peaks, weights, strict=True)):
        outputs = (node.outputs[2 * i], node.outputs[2 * i + 1])
        scaled = _times(row, weight)
        _write_codes(memory, place, outputs, scaled, inner.value(), inverse, node)


def _times(row: Row, weight: Row) -> Row:
    return lambda column: row(column) * weight(column)


def _combined_inverse(node: Node, before: Buffer, after: Buffer, width: int) -> Expr:
    """1/rms of the inner norm, times that of the outer one: with u = x * w * r,
    mean(u^2) = r^2 * mean((x w)^2). NaN if only the latter overflows."""
    total = v.fold(after, _add)
    if node.inputs[1] is None:
        return _inverse_rms(total, width, _float(node, "inner_eps"))
    outer = _inverse_rms(v.fold(before, _add), width, _float(node, "outer_eps"))
    normed = I.bind(total * outer * outer)
    inner = _inverse_rms(_if_finite(normed, normed), width, _float(node, "inner_eps"))
    return I.bind(T.Select(outer == T.float32(0), outer, outer * inner))


def _write_codes(
    memory: Memory,
    place: Place,
    outputs: tuple[str, str],
    row: Row,
    peak: Expr,
    inverse: Expr,
    node: Node,
) -> None:
    """codes = round(row * inverse * 127 / absmax), absmax = max(peak * inverse, quant_eps)."""
    codes, scale = outputs
    smallest = T.float32(_float(node, "quant_eps"))
    # NaN is not less than anything; the scale carries it to the outputs.
    found = I.bind(peak * inverse)
    absmax = I.bind(T.Select(found < smallest, smallest, _if_finite(found, found)))
    factor = v.splat(I.bind(T.float32(CODE_MAX) / absmax * inverse))
    total = v.zeros("int32")

    def write(column: Expr, code: Expr) -> None:
        v.store(*memory.codes(codes, place, column), T.Cast(f"int8x{LANES}", code))

    def body(column: Expr, lanes: int) -> None:
        # |row * factor| <= 127 (1 + 2^-22): rounding cannot leave int8, so there is no clamp.
        code = I.bind(v.to_int(_valid(row(column), lanes) * factor))
        write(column, code)
        v.store(total, 0, v.load(total, 0, v.INTS) + code)

    _columns(memory.width(codes), body)
    for column in range(round_up(memory.width(codes), LANES), memory.stride(codes), LANES):
        write(column, v.splat_int(0))  # see strides.CODES_SLACK
    floats, start = memory.row(scale, place)
    I.buffer_store(floats, absmax / T.float32(CODE_MAX), [start])
    summed = T.reinterpret("float32", v.fold(total, _add, "int32"))
    I.buffer_store(floats, summed, [start + SUM])


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
