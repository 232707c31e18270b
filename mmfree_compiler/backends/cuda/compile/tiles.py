"""Ops that make columns independently: products, pointwise ops, scans, in the table TILES."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from mmfree_compiler.backends.cuda.compile.tile import Tile
from mmfree_compiler.program import Node


def epilogue(tile: Tile, nodes: Iterable[Node]) -> None:
    """Write the lines of ops of a tile."""
    for node in nodes:
        made = TILES[node.op](tile, node)
        for name, expression in zip(node.outputs, made, strict=True):
            tile.loaded[name] = tile.writer.bind(name, expression)
            tile.keep(name)


# --- a node -> the expressions of its outputs ----------------------------------------------------

Emitter = Callable[[Tile, Node], tuple[str, ...]]


def _call(function: str) -> Emitter:
    def emit(tile: Tile, node: Node) -> tuple[str, ...]:
        return (f"functions.{function}({', '.join(tile[name] for name in node.inputs)})",)

    return emit


def _ternary_linear(tile: Tile, node: Node) -> tuple[str, ...]:
    """(sum(q (w+1)) - sum(q)) * scale * weight_scale + bias."""
    weight_scale, bias = node.inputs[3:]
    assert weight_scale is not None
    exact, scale = tile.scaled_sum(node)
    out = f"{exact}.to(tl.float32) * ({scale} * {tile[weight_scale]})"
    return (out if bias is None else f"functions.add({out}, {tile[bias]})",)


def _embedding(tile: Tile, node: Node) -> tuple[str, ...]:
    """Rows of ids, which the host may not have checked: NaN for those that there are not."""
    ids, table = node.inputs
    assert ids is not None
    assert table is not None
    pointer, _ = tile.rows_of(ids)
    load = f"tl.load({pointer} + {tile.row(ids)}, mask=alive, other=0)"
    index = tile.writer.bind(ids, load)
    rows, width = tile.program.constants[table].shape[-2:]
    known = tile.writer.bind("known", f"({index} >= 0) & ({index} < {rows})")
    at = f"{tile.constant(table)} + {index} * {width} + column"
    row = f"tl.load({at}, mask=inside & {known}, other=0.0).to(tl.float32)"
    return (f"tl.where({known}, {row}, float('nan'))",)


def _mlgru_gates(tile: Tile, node: Node) -> tuple[str, ...]:
    i, f, bound = node.inputs
    function = "gates_unbounded" if bound is None else "gates"
    operands = [tile[name] for name in (i, f, bound) if name is not None]
    c, forget = (tile.writer.fresh(name) for name in node.outputs)
    tile.writer.add(f"{c}, {forget} = functions.{function}({', '.join(operands)})")
    return c, forget


def _mlgru_scan(tile: Tile, node: Node) -> tuple[str, ...]:
    c, forget = node.inputs[:2]
    assert node.state is not None
    h = tile.kept(node.state)
    h = tile.writer.bind(node.state, f"functions.scan_step({h}, {tile[c]}, {tile[forget]})")
    tile.leave(node.state, h)
    return (h,)


def _short_conv(tile: Tile, node: Node) -> tuple[str, ...]:
    """The state holds the last k inputs, oldest first: shift it, and sum the taps in this order."""
    x, weight, bias = node.inputs[:3]
    assert node.state is not None
    assert weight is not None
    taps, width = tile.program.state(node.state).shape
    window = [tile.kept(node.state, tap * width) for tap in range(1, taps)]
    total = ""
    factors = tile.taps(weight)
    for tap, variable in enumerate([*window, tile[x]]):
        tile.leave(node.state, variable, tap * width)
        product = f"{factors[tap]} * {variable}"
        total = tile.writer.bind("total", f"{total} + {product}" if total else product)
    return (total if bias is None else f"functions.add({total}, {tile[bias]})",)


_POINTWISE = (
    "abs add div exp identity maximum minimum mul neg rdiv reciprocal relu sigmoid silu sqrt square"
    " sub swiglu tanh"
)
TILES: Mapping[str, Emitter] = {name: _call(name) for name in _POINTWISE.split()} | {
    "embedding": _embedding,
    "mlgru_gates": _mlgru_gates,
    "mlgru_scan": _mlgru_scan,
    "short_conv": _short_conv,
    "ternary_linear": _ternary_linear,
}
