"""The source of the kernel of each part; rows.py and tiles.py say what its ops compute.

A kernel's grid is (blocks of columns, blocks of tokens or sequences). `row` is the index of a token
among those that the launch is for, `token` among all of the call.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from mmfree_compiler.artifact import TensorEntry
from mmfree_compiler.backends.cuda.compile import fused
from mmfree_compiler.backends.cuda.compile.kernel import Language, Source, Writer
from mmfree_compiler.backends.cuda.compile.planned import PlannedProgram
from mmfree_compiler.backends.cuda.compile.rows import RowTile, row_ops, row_warps
from mmfree_compiler.backends.cuda.compile.schedule import Part
from mmfree_compiler.backends.cuda.compile.shapes import Shape
from mmfree_compiler.backends.cuda.compile.tiles import Tile, epilogue
from mmfree_compiler.backends.cuda.facts import Over


@dataclass(frozen=True)
class Sources:
    """Writes the kernels of a Program. `inner` are the values with rows of wanted tokens alone."""

    program: PlannedProgram
    tensors: Mapping[str, TensorEntry]
    inner: frozenset[str]

    def write(self, part: Part, shape: Shape) -> Source:
        """The kernel of a part."""
        if part.kind == "rows":
            return _rows(RowTile(self.program, self.tensors, part, Writer(), self.inner), shape)
        tile = Tile(self.program, self.tensors, part, Writer(), self.inner)
        if part.kind == "fused":
            return _fused(tile, shape.spread(tile.width))
        if widths := [self.program.values[name].width for name in part.codes]:
            shape = shape.fitted(max(widths))
        return (_scan if part.kind == "scan" else _tiles)(tile, shape)


def _rows(tile: RowTile, shape: Shape) -> Source:
    tile.writer.add("row = tl.program_id(1)", f"if row >= {_count(tile)}:", "    return")
    _token(tile)
    row_ops(tile)
    return _source(tile, _over(tile), 1, replace(shape, warps=row_warps(tile)))


def _tiles(tile: Tile, shape: Shape) -> Source:
    _columns(tile, shape)
    count = _count(tile)
    tile.writer.add(
        f"first = tl.program_id(1) * {shape.tokens}",
        f"row = first + tl.arange(0, {shape.tokens})[:, None]",
        f"alive = row < {count}",
        "inside = alive & valid",
    )
    _token(tile)
    _products(tile, shape, "first", count)
    epilogue(tile)
    return _source(tile, _over(tile), -(-tile.width // shape.columns), shape)


def _scan(tile: Tile, shape: Shape) -> Source:
    _columns(tile, shape)
    order, starts = (tile.writer.parameter(x, "*i32", x) for x in ("order", "starts"))
    tile.writer.add(
        "inside = valid", "alive = tl.program_id(1) >= 0", f"start = {starts} + tl.program_id(1)"
    )
    with tile.writer.block("for k in range(tl.load(start), tl.load(start + 1)):"):
        tile.writer.add(f"row = tl.load({order} + k)", "token = row")
        _products(tile, shape, "row", "row + 1")
        epilogue(tile)
    return _source(tile, "sequences", -(-tile.width // shape.columns), shape)


def _fused(tile: Tile, shape: Shape) -> Source:
    fused.write(tile, shape)
    return _source(tile, _over(tile), -(-tile.width // shape.columns), shape, "gluon")


def _over(tile: Tile) -> Over:
    return "wanted" if tile.part.wanted else "tokens"


def _count(tile: Tile) -> str:
    """The variable of how many rows there are: a launch may have programs for more."""
    offset = 4 * tile.part.wanted
    pointer = tile.writer.parameter("counts", "*i32", "counts", offset)
    return tile.writer.bind("count", f"tl.load({pointer})")


def _token(tile: Tile) -> None:
    if not tile.part.wanted:
        tile.writer.add("token = row")
        return
    wanted = tile.writer.parameter("wanted", "*i32", "wanted")
    mask = ", mask=alive, other=0" if tile.part.kind == "tiles" else ""
    tile.writer.add(f"token = tl.load({wanted} + row{mask})")


def _columns(tile: Tile, shape: Shape) -> None:
    tile.writer.add(
        f"column = tl.program_id(0) * {shape.columns} + tl.arange(0, {shape.columns})[None, :]",
        f"valid = column < {tile.width}",
    )


def _products(tile: Tile, shape: Shape, first: str, end: str) -> None:
    """The integer sums of all products of a tile, for rows from `first` to before `end`."""
    for node in tile.part.nodes:
        if node.op == "ternary_linear":
            codes, _, weight = node.inputs[:3]
            assert codes is not None
            assert weight is not None
            tile.sums[node.outputs[0]] = tile.writer.bind(
                f"{node.outputs[0]}.sum",
                shape.product(
                    tile.rows_of(codes),
                    (first, end),
                    tile.constant(weight),
                    tile.program.values[codes].width,
                ),
            )


def _source(
    tile: Tile, over: Over, columns: int, shape: Shape, language: Language = "triton"
) -> Source:
    name = f"{tile.part.name}_{shape.name}"
    return Source(
        name,
        tile.writer.text(name, language),
        tile.writer.parameters,
        tile.writer.arguments,
        over,
        shape.tokens,
        columns,
        shape.warps,
        language,
    )
