"""Ops that need a token's whole row: norms and quantizers, in the table ROWS.

A program makes all of them for one token, with whole rows in its registers: blocks of a power of
two of columns, of which those beyond the row are 0.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar

from mmfree_compiler.backends.cuda.compile.tile import Tile
from mmfree_compiler.backends.cuda.strides import codes_stride, power_of_two
from mmfree_compiler.program import Node


class RowTile(Tile):
    """The values of one token, of any widths.

    `layout` is the last argument of `arange`, if any, and `reductions` the module with them.
    """

    layout: ClassVar[str] = ""
    reductions: ClassVar[str] = "reductions"

    def columns(self, width: int) -> tuple[str, str, str]:
        """Variables of the columns of rows of this width, and of which of them exist."""
        column, valid = f"column{width}", f"valid{width}"
        if column not in self.loaded:
            numbers = f"tl.arange(0, {self.block(width)}{self.layout})"
            self.writer.add(f"{column} = {numbers}", f"{valid} = {column} < {width}")
            self.loaded[column] = column
        return column, valid, valid

    def block(self, width: int) -> int:
        """The columns of the block that holds a row."""
        return block_size(width)

    def store_codes(self, name: str, variable: str) -> None:
        """With the zeros that fill the row."""
        width = self.program.values[name].width
        column, _, _ = self.columns(width)
        pointer, stride = self.rows_of(name)
        at = f"{pointer} + {self.row(name)} * {stride} + {column}"
        self.writer.add(f"tl.store({at}, {variable}, mask={column} < {codes_stride(width)})")

    def store_scale(self, name: str, scale: str, total: str) -> None:
        """The scale of a row of codes, and beside it their sum."""
        pointer, stride = self.rows_of(name)
        at = self.writer.bind("at", f"{pointer} + {self.row(name)} * {stride}")
        bits = f"{total}.to(tl.float32, bitcast=True)"
        self.writer.add(f"tl.store({at}, {scale})", f"tl.store({at} + 1, {bits})")

    def keep_row(self, name: str, expression: str) -> None:
        """A row that this kernel made; columns beyond it stay 0."""
        _, valid, _ = self.columns(self.program.values[name].width)
        self.loaded[name] = self.writer.bind(name, f"tl.where({valid}, {expression}, 0.0)")
        self.keep(name)


def block_size(width: int) -> int:
    """The least power of two that holds a row of floats, or one of codes with its padding."""
    return power_of_two(codes_stride(width))


def row_warps(tile: RowTile) -> int:
    """A warp for 512 columns, at most 8."""
    values = tile.program.values
    widest = max(values[name].width for name in tile.part.read | tile.part.made if name in values)
    return max(1, min(8, block_size(widest) // 512))


def row_ops(tile: RowTile) -> None:
    """Write the lines of all ops."""
    for node in tile.part.nodes:
        ROWS[node.op](tile, node)


def _call(function: str) -> Callable[[RowTile, Node], None]:
    def emit(tile: RowTile, node: Node) -> None:
        (name,) = node.outputs
        operands = [tile[operand] for operand in node.inputs]
        numbers = [repr(value) for value in node.attrs.values()]
        width = tile.program.values[name].width
        called = f"{function}({', '.join([*operands, *numbers, str(width)])})"
        tile.keep_row(name, called)

    return emit


def _rms_norm(tile: RowTile, node: Node) -> None:
    x, weight = (tile[name] for name in node.inputs)
    tile.keep_row(node.outputs[0], f"rows.rms_normed({_with_mean(tile, node, x)}, {weight})")


def _gated_norm(tile: RowTile, node: Node) -> None:
    g, h, weight = (tile[name] for name in node.inputs)
    gate = h if node.inputs[1] in tile.part.gates else f"functions.silu({h})"
    tile.keep_row(node.outputs[0], f"rows.gated({_with_mean(tile, node, g)}, {weight}, {gate})")


def _with_mean(tile: RowTile, node: Node, x: str) -> str:
    """A row, its mean square, and eps."""
    width, (eps,) = tile.program.values[node.outputs[0]].width, node.attrs.values()
    mean = tile.writer.bind("mean", f"{tile.reductions}.mean_square({x}, {width})")
    return f"{x}, {mean}, {eps!r}"


def _quantize(tile: RowTile, node: Node) -> None:
    row = tile[node.inputs[0]]
    _codes(tile, node, [row], "1.0")


def _norm_quant(tile: RowTile, node: Node) -> None:
    width = tile.program.values[node.outputs[0]].width
    normed, scaled = norm_rows(tile, node)
    means = [
        tile.writer.bind("mean", f"{tile.reductions}.mean_square({x}, {width})") for x in normed
    ]
    r = tile.writer.bind("r", inverse(node, means))
    _codes(tile, node, scaled, r)


def norm_rows(tile: RowTile, node: Node) -> tuple[list[str], list[str]]:
    """The rows that a norm_quant takes mean squares of, and those that it quantizes."""
    x, outer, *inners = node.inputs
    source = tile[x]
    row = source if outer is None else tile.writer.bind("row", f"{source} * {tile[outer]}")
    scaled = [tile.writer.bind("scaled", f"{row} * {tile[inner]}") for inner in inners]
    return [row] if outer is None else [source, row], scaled


def inverse(node: Node, means: Sequence[str]) -> str:
    """1/rms of one norm, or of a norm after a norm: see ops/norm_quant.py."""
    inner = repr(node.attrs["inner_eps"])
    if len(means) == 1:
        return f"rows.inverse_of_one({means[0]}, {inner})"
    return f"rows.inverse_of_both({', '.join(means)}, {node.attrs['outer_eps']!r}, {inner})"


def _codes(tile: RowTile, node: Node, rows: Sequence[str], r: str) -> None:
    """The codes of each row times r, and its scale beside the sum of its codes."""
    pairs = zip(node.outputs[::2], node.outputs[1::2], strict=True)
    for (codes, scale), row in zip(pairs, rows, strict=True):
        code, factor, total = (tile.writer.fresh(x) for x in (codes, scale, "sum"))
        made = f"codes.quantized({row}, {r}, {node.attrs['quant_eps']!r})"
        tile.writer.add(f"{code}, {factor}, {total} = {made}")
        tile.store_codes(codes, code)
        tile.store_scale(scale, factor, total)


ROWS: Mapping[str, Callable[[RowTile, Node], None]] = {
    "center": _call("rows.centered"),
    "gated_norm": _gated_norm,
    "norm_quant": _norm_quant,
    "quantize": _quantize,
    "rms_norm": _rms_norm,
}
