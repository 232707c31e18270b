"""The source of the kernel of each part; rows.py and tiles.py say what its ops compute.

A kernel's grid is (blocks of columns, blocks of tokens or sequences). `row` is the index of a token
among those that the launch is for, `token` among all of the call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, TypeVar

from mmfree_compiler.artifact import TensorEntry
from mmfree_compiler.backends.cuda.compile import fused, gluon_scans, wgmma_tiles
from mmfree_compiler.backends.cuda.compile.early import load_constants, load_states
from mmfree_compiler.backends.cuda.compile.gluon_rows import GLUON_ROWS, GluonRows, gluon_row_ops
from mmfree_compiler.backends.cuda.compile.gluon_scans import RingTile
from mmfree_compiler.backends.cuda.compile.kernel import Language, Source, Writer
from mmfree_compiler.backends.cuda.compile.multiply import multiply
from mmfree_compiler.backends.cuda.compile.planned import PlannedProgram
from mmfree_compiler.backends.cuda.compile.rows import RowTile, row_ops, row_warps
from mmfree_compiler.backends.cuda.compile.scans import ScanTile
from mmfree_compiler.backends.cuda.compile.schedule import Kind, Part
from mmfree_compiler.backends.cuda.compile.shapes import ROWS, PlanShape, Shape
from mmfree_compiler.backends.cuda.compile.tile import Tile
from mmfree_compiler.backends.cuda.compile.tiles import epilogue
from mmfree_compiler.backends.cuda.compile.tokens import (
    one_row,
    over,
    program_rows,
    some_rows,
    wait,
)
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

    def tile(self, kind: type[T], part: Part, **more: Any) -> T:
        """The values of a part's kernel before it is written."""
        return kind(self.program, self.tensors, part, Writer(), self.inner, **more)


def _rows(sources: Sources, part: Part, plan: PlanShape) -> Source:
    if plan.gluon and {node.op for node in part.nodes} <= GLUON_ROWS.keys():
        return _gluon_rows(sources, part)
    tile = sources.tile(RowTile, part)
    one_row(tile)
    wait(tile, "alive")
    row_ops(tile)
    return _source(tile, over(tile), 1, replace(ROWS, warps=row_warps(tile)))


def _gluon_rows(sources: Sources, part: Part) -> Source:
    shape = replace(ROWS, warps=row_warps(sources.tile(RowTile, part)))
    tile = sources.tile(GluonRows, part, warps=shape.warps)
    tile.writer.add(f"ROW: tl.constexpr = joint.row_layout({shape.warps})")
    one_row(tile)
    load_constants(tile, part.nodes)
    wait(tile, "alive")
    gluon_row_ops(tile, part.nodes)
    return _source(tile, over(tile), 1, shape, "gluon")


def _tiles(sources: Sources, part: Part, plan: PlanShape) -> Source:
    tile = sources.tile(Tile, part)
    # Of a prompt's tokens, the logits of the last one are wanted.
    few = part.wanted and plan.together and sources.program.kind == "lm"
    shape = plan.tile(tile.width, [tile.depth(codes) for codes in part.codes], few)
    if shape.function == "wgmma" and part.codes:
        return _source(tile, over(tile), wgmma_tiles.write(tile, shape), shape, "gluon")
    _columns(tile, shape)
    program_rows(tile, shape.tokens)
    some_rows(tile, "first", str(shape.tokens), ":, None")
    wait(tile, "first < count")
    multiply(tile, shape, "first", "count")
    epilogue(tile, part.nodes)
    return _source(tile, over(tile), -(-tile.width // shape.columns), shape)


def _scan(sources: Sources, part: Part, plan: PlanShape) -> Source:
    """States stay in registers from the first token of a sequence to its last."""
    rings = sources.tile(RingTile, part)
    if plan.gluon and rings.ringed:
        return _gluon_scan(rings, plan.sizes.scan)
    tile, shape = sources.tile(ScanTile, part), plan.sizes.scan
    if part.codes:
        shape = shape.fitted(max(map(tile.depth, part.codes)))
    _columns(tile, shape)
    tile.begin()
    wait(tile, "alive")
    load_states(tile, part.nodes)
    with tile.writer.block(
        f"for row in tl.range(first, end, num_stages={shape.stages}, loop_unroll_factor=4):"
    ):
        tile.writer.add("token = row")
        multiply(tile, shape, "row", "row + 1")
        epilogue(tile, part.nodes)
        tile.carry_states()
    tile.store_states()
    return _source(tile, "sequences", -(-tile.width // shape.columns), shape)


def _gluon_scan(tile: RingTile, shape: Shape) -> Source:
    gluon_scans.write(tile, shape)
    return _source(tile, "sequences", -(-tile.width // shape.columns), shape, "gluon")


def _fused(sources: Sources, part: Part, plan: PlanShape) -> Source:
    tile = sources.tile(Tile, part)
    shape = plan.sizes.fused.spread(tile.width)
    fused.write(tile, shape)
    return _source(tile, over(tile), -(-tile.width // shape.columns), shape, "gluon")


_KINDS: Mapping[Kind, Callable[[Sources, Part, PlanShape], Source]] = {
    "rows": _rows,
    "tiles": _tiles,
    "scan": _scan,
    "fused": _fused,
}


def _columns(tile: Tile, shape: Shape) -> None:
    tile.writer.add(
        f"column = tl.program_id(0) * {shape.columns} + tl.arange(0, {shape.columns})[None, :]",
        f"valid = column < {tile.width}",
    )


def _source(
    tile: Tile, launched: Over, columns: int, shape: Shape, language: Language = "triton"
) -> Source:
    name = f"{tile.part.name}_{shape.name}"
    return Source(
        name,
        tile.writer.text(name, language),
        tile.writer.parameters,
        tile.writer.arguments,
        launched,
        shape.tokens,
        columns,
        shape.warps,
        shape.stages,
        language,
        shape.shared,
    )
