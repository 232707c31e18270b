"""Ops that make 16 columns independently: products, pointwise ops, scans, in the table TILES.

A tile's ternary products run first and make integer sums (multiply.py, amx.py). All other ops
follow token by token, on vectors that leave registers only if another stage needs them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

from tvm.script import tirx as T
from tvm.tirx.script.builder import ir as I

from mmfree_compiler.backends.cpu.compile import functions
from mmfree_compiler.backends.cpu.compile import vector as v
from mmfree_compiler.backends.cpu.compile.memory import SUM, Memory, Place, output_buffer
from mmfree_compiler.backends.cpu.compile.vector import LANES, Buffer, Expr
from mmfree_compiler.backends.cpu.strides import row_stride
from mmfree_compiler.program import Node


@dataclass(frozen=True)
class _Tile:
    """A tile at one token: vectors by value name, and the integer sums of its products."""

    memory: Memory
    place: Place
    vectors: dict[str, Expr]
    sums: dict[str, Expr]

    def __getitem__(self, name: str | None) -> Expr:
        """16 floats of an operand: made in this tile, or read from a row or a constant."""
        assert name is not None
        if name in self.vectors:
            return self.vectors[name]
        if name in self.memory.program.constants:
            return self.memory.floats(name, self.place.layer, self.place.column)
        return I.bind(self.memory.load(name, self.place, self.place.column))


def epilogue(
    memory: Memory, place: Place, nodes: tuple[Node, ...], totals: dict[str, Expr]
) -> None:
    """Emit all ops of a tile for one token; `totals` are the integer sums of its products."""
    tile = _Tile(memory, place, {}, totals)
    for node in nodes:
        made = TILES[node.op](tile, node)
        for name, vector in zip(node.outputs, made, strict=True):
            tile.vectors[name] = v.cut(vector)
            _keep(memory, place, name, tile.vectors[name])


def _keep(memory: Memory, place: Place, name: str, vector: Expr) -> None:
    """Store a value if another stage or the caller reads it."""
    if name in memory.program.storage:
        memory.store(name, place, place.column, vector)
    if name in memory.program.outputs:
        stride = row_stride(memory.program.values[name])
        row = (place.token - place.first) * stride
        # A stage with a scan runs every token; those before `first` have no output row.
        with I.If(place.token >= place.first), I.Then():
            v.store(memory.buffers[output_buffer(name)], row + place.column, vector)


# --- emitters: a node -> its output vectors -------------------------------------------------------


def _ternary_linear(tile: _Tile, node: Node) -> tuple[Expr, ...]:
    """(sum(q (w+1)) - sum(q)) * scale * weight_scale + bias."""
    _, scale, _, weight_scale, bias = node.inputs
    memory, place = tile.memory, tile.place
    assert scale is not None
    assert weight_scale is not None
    code_sum = T.reinterpret("int32", memory.scalar(scale, place, SUM))
    total = T.Cast(v.FLOATS, tile.sums[node.outputs[0]] - v.splat_int(code_sum))
    step = memory.scalar(scale, place, 0) * memory.scalar_constant(weight_scale, place.layer)
    out = v.multiply(total, v.splat(step))
    return (out if bias is None else v.add(out, tile[bias]),)


def _embedding(tile: _Tile, node: Node) -> tuple[Expr, ...]:
    table = node.inputs[1]
    assert table is not None
    buffer, start = tile.memory.table(table, tile.place)
    dtype = tile.memory.program.constants[table].dtype
    return (_WIDEN[dtype](buffer, start, tile.place.column),)


def _float32_at(buffer: Buffer, start: Expr, element: Expr) -> Expr:
    return T.reinterpret(v.FLOATS, v.load(buffer, start + element * 4, "uint8x64"))


def _half(buffer: Buffer, start: Expr, element: Expr, dtype: str) -> Expr:
    return T.reinterpret(dtype, v.load(buffer, start + element * 2, "uint8x32"))


def _float16_at(buffer: Buffer, start: Expr, element: Expr) -> Expr:
    return T.Cast(v.FLOATS, _half(buffer, start, element, "float16x16"))


def _bfloat16_at(buffer: Buffer, start: Expr, element: Expr) -> Expr:
    bits = T.Cast("uint32x16", _half(buffer, start, element, "uint16x16"))
    return T.reinterpret(v.FLOATS, T.shift_left(bits, T.broadcast(T.uint32(16), LANES)))


_WIDEN = {"float32": _float32_at, "float16": _float16_at, "bfloat16": _bfloat16_at}


def _swiglu(tile: _Tile, node: Node) -> tuple[Expr, ...]:
    gate, up = node.inputs
    return (v.multiply(functions.silu(tile[gate]), tile[up]),)


def _mlgru_gates(tile: _Tile, node: Node) -> tuple[Expr, ...]:
    i, f, bound = node.inputs
    forget, one = functions.sigmoid(tile[f]), v.splat(1.0)
    if bound is not None:
        low = I.bind(tile[bound])
        forget = v.add(low, v.multiply(v.subtract(one, low), forget))
    return (v.multiply(functions.silu(tile[i]), v.subtract(one, forget)), forget)


def _mlgru_scan(tile: _Tile, node: Node) -> tuple[Expr, ...]:
    c, forget = node.inputs[:2]
    assert node.state is not None
    buffer, at = tile.memory.state(node.state, tile.place)
    h = v.add(v.multiply(tile[forget], v.load(buffer, at)), tile[c])
    v.store(buffer, at, h)
    return (h,)


def _short_conv(tile: _Tile, node: Node) -> tuple[Expr, ...]:
    """The state holds the last k inputs, oldest first: shift it, and sum the taps in this order."""
    x, weight, bias = node.inputs[:3]
    assert node.state is not None
    assert weight is not None
    memory, place = tile.memory, tile.place
    taps = memory.program.state(node.state).shape[0]
    window = []
    for tap in range(taps):
        buffer, at = memory.state(node.state, place, tap)
        source = memory.state(node.state, place, tap + 1)[1]
        window.append(I.bind(tile[x] if tap == taps - 1 else v.load(buffer, source)))
    products = []
    for tap, vector in enumerate(window):
        buffer, at = memory.state(node.state, place, tap)
        v.store(buffer, at, vector)
        row = memory.tap_stride(weight) * tap
        coefficient = memory.elements(weight, place.layer, place.column + row)
        products.append(v.multiply(coefficient, vector))
    out = reduce(v.add, products)
    return (out if bias is None else v.add(out, tile[bias]),)


Emitter = Callable[[_Tile, Node], tuple[Expr, ...]]


def _pointwise(function: Callable[..., Expr]) -> Emitter:
    return lambda tile, node: (function(*(tile[name] for name in node.inputs)),)


TILES: dict[str, Emitter] = {
    "embedding": _embedding,
    "mlgru_gates": _mlgru_gates,
    "mlgru_scan": _mlgru_scan,
    "short_conv": _short_conv,
    "swiglu": _swiglu,
    "ternary_linear": _ternary_linear,
    "abs": _pointwise(v.absolute),
    "add": _pointwise(v.add),
    "div": _pointwise(v.divide),
    "exp": _pointwise(functions.exp),
    "identity": _pointwise(lambda x: x),
    "maximum": _pointwise(v.maximum),
    "minimum": _pointwise(v.minimum),
    "mul": _pointwise(v.multiply),
    "neg": _pointwise(v.negative),
    "rdiv": _pointwise(lambda x, y: v.divide(y, x)),
    "reciprocal": _pointwise(lambda x: v.divide(v.splat(1.0), x)),
    "relu": _pointwise(lambda x: v.at_least(0.0, x)),
    "sigmoid": _pointwise(functions.sigmoid),
    "silu": _pointwise(functions.silu),
    "sqrt": _pointwise(v.square_root),
    "square": _pointwise(lambda x: v.multiply(x, x)),
    "sub": _pointwise(v.subtract),
    "tanh": _pointwise(functions.tanh),
}
