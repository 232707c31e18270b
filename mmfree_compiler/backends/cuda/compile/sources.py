"""The source of the kernel of each part; rows.py and tiles.py say what its ops compute.

A kernel's grid is (blocks of columns, blocks of tokens or sequences). `row` is the index of a token
among those that the launch is for, `token` among all of the call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TypeVar

from mmfree_compiler.artifact import TensorEntry
from mmfree_compiler.backends.cuda.compile import fused
from mmfree_compiler.backends.cuda.compile.early import load_constants
from mmfree_compiler.backends.cuda.compile.gluon_rows import GLUON_ROWS, GluonRows, gluon_row_ops
from mmfree_compiler.backends.cuda.compile.kernel import WAIT, Language, Source, Writer
from mmfree_compiler.backends.cuda.compile.multiply import multiply
from mmfree_compiler.backends.cuda.compile.planned import PlannedProgram
from mmfree_compiler.backends.cuda.compile.rows import RowTile, row_ops, row_warps
from mmfree_compiler.backends.cuda.compile.scans import ScanTile
from mmfree_compiler.backends.cuda.compile.schedule import Kind, Part
from mmfree_compiler.backends.cuda.compile.shapes import ROWS, PlanShape, Shape
from mmfree_compiler.backends.cuda.compile.tile import Tile
from mmfree_compiler.backends.cuda.compile.tiles import epilogue
from mmfree_compiler.backends.cuda.facts import Over

T = TypeVar("T", bound=Tile)


@dataclass(frozen=True)
class Sources:
    """Writes the kernels of a Program. `inner` are the values with rows of wanted tokens alone."""

    program: PlannedProgram
    tensors: Mapping[str, TensorEntry]
    inner: frozenset[str]

    def write(self, part: Part, plan: PlanShape) -> Source:
        """The kernel of a part in a plan."""
        return _KINDS[part.kind](self, part, plan)

    def tile(self, kind: type[T], part: Part) -> T:
        """The values of a part's kernel before it is written."""
        return kind(self.program, self.tensors, part, Writer(), self.inner)


def _rows(sources: Sources, part: Part, plan: PlanShape) -> Source:
    if plan.gluon and {node.op for node in part.nodes} <= GLUON_ROWS.keys():
        return _gluon_rows(sources, part)
    tile = sources.tile(RowTile, part)
    tile.writer.add(WAIT)
    _row(tile)
    row_ops(tile)
    return _source(tile, _over(tile), 1, replace(ROWS, warps=row_warps(tile)))


def _gluon_rows(sources: Sources, part: Part) -> Source:
    tile = sources.tile(GluonRows, part)
    shape = replace(ROWS, warps=row_warps(tile))
    tile.writer.add(f"ROW: tl.constexpr = joint.row_layout({shape.warps})")
    load_constants(tile, part.nodes)
    tile.writer.add(WAIT)
    _row(tile)
    gluon_row_ops(tile, part.nodes)
    return _source(tile, _over(tile), 1, shape, "gluon")


def _row(tile: RowTile) -> None:
    """The variables of the token; a program that has none ends."""
    tile.writer.add("row = tl.program_id(1)")
    tile.writer.add(f"if row >= {_count(tile)}:", "    return")
    _token(tile)


def _tiles(sources: Sources, part: Part, plan: PlanShape) -> Source:
    tile = sources.tile(Tile, part)
    shape = plan.tile(tile.width, max(map(tile.depth, part.codes), default=None))
    tile.writer.add(WAIT)
    _columns(tile, shape)
    count = _count(tile)
    tile.writer.add(
        f"first = tl.program_id(1) * {shape.tokens}",
        f"if first >= {count}:",
        "    return",
        f"row = first + tl.arange(0, {shape.tokens})[:, None]",
        f"alive = row < {count}",
        "inside = alive & valid",
    )
    _token(tile)
    multiply(tile, shape, "first", count)
    epilogue(tile)
    return _source(tile, _over(tile), -(-tile.width // shape.columns), shape)


def _scan(sources: Sources, part: Part, plan: PlanShape) -> Source:
    """States stay in registers from the first token of a sequence to its last."""
    tile, shape = sources.tile(ScanTile, part), plan.sizes.scan
    if part.codes:
        shape = shape.fitted(max(map(tile.depth, part.codes)))
    tile.writer.add(WAIT)
    _columns(tile, shape)
    starts = tile.writer.parameter("starts", "*i32", "starts")
    tile.writer.add(
        f"first = tl.load({starts} + tl.program_id(1))",
        f"end = tl.load({starts} + tl.program_id(1) + 1)",
        "alive = first < end",
        "if not alive:",
        "    return",
        "inside = valid",
        "token = first",
    )
    tile.load_states()
    with tile.writer.block(
        f"for row in tl.range(first, end, num_stages={shape.stages}, loop_unroll_factor=4):"
    ):
        tile.writer.add("token = row")
        multiply(tile, shape, "row", "row + 1")
        epilogue(tile)
        tile.carry_states()
    tile.store_states()
    return _source(tile, "sequences", -(-tile.width // shape.columns), shape)


def _fused(sources: Sources, part: Part, plan: PlanShape) -> Source:
    tile = sources.tile(Tile, part)
    shape = plan.sizes.fused.spread(tile.width)
    fused.write(tile, shape)
    return _source(tile, _over(tile), -(-tile.width // shape.columns), shape, "gluon")


_KINDS: Mapping[Kind, Callable[[Sources, Part, PlanShape], Source]] = {
    "rows": _rows,
    "tiles": _tiles,
    "scan": _scan,
    "fused": _fused,
}


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
        shape.stages,
        language,
    )
