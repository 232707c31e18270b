"""Ops on rows in Gluon: those of rows.py, where several rows share each reduction."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from mmfree_compiler.backends.cuda.compile.fusible import ROW_OPS
from mmfree_compiler.backends.cuda.compile.rows import ROWS, RowTile, inverse, norm_rows
from mmfree_compiler.program import Node

LEAST_COLUMNS = 128  # of a row for each warp: see kernels/joint.py


@dataclass(frozen=True)
class Codes:
    """A quantized row: names of its values, and the variables of codes and scale."""

    name: str
    scale_name: str
    codes: str
    scale: str


@dataclass
class GluonRows(RowTile):
    """The values of one token in blocks of an explicit layout, ROW, in `warps` warps."""

    layout = ", ROW"
    reductions = "joint"
    warps: int = field(kw_only=True)

    def block(self, width: int) -> int:
        return max(LEAST_COLUMNS * self.warps, super().block(width))

    def keep_codes(self, made: Sequence[Codes]) -> None:
        """Make codes and scales known to what reads them."""
        wide = ", ".join(f"{row.codes}.to(tl.int32)" for row in made)
        sums = self.writer.bind("sums", f"joint.sums(({wide},))")
        for n, row in enumerate(made):
            self.store_codes(row.name, row.codes)
            self.store_scale(row.scale_name, row.scale, f"{sums}[{n}]")


def gluon_row_ops(tile: GluonRows, nodes: Iterable[Node]) -> None:
    """Write the lines of ops."""
    for node in nodes:
        GLUON_ROWS[node.op](tile, node)


def _quantize(tile: GluonRows, node: Node) -> None:
    rows = [tile[node.inputs[0]]]
    _codes(tile, node, rows, _peaks(tile, rows), "1.0")


def _norm_quant(tile: GluonRows, node: Node) -> None:
    width = tile.program.values[node.outputs[0]].width
    normed, scaled = norm_rows(tile, node)
    peaks = _peaks(tile, [*normed, *scaled])
    squares = [f"reductions.squares({x}, {peak})" for x, peak in zip(normed, peaks, strict=False)]
    totals = tile.writer.bind("totals", f"joint.sums(({', '.join(squares)},))")
    means = [
        tile.writer.bind("mean", f"reductions.mean_of_squares({totals}[{n}], {peaks[n]}, {width})")
        for n in range(len(normed))
    ]
    r = tile.writer.bind("r", inverse(node, means))
    _codes(tile, node, scaled, peaks[len(normed) :], r)


def _peaks(tile: GluonRows, rows: Sequence[str]) -> list[str]:
    """The bits of the absmax of each row."""
    bits = ", ".join(f"reductions.magnitude_bits({row})" for row in rows)
    peaks = tile.writer.bind("peaks", f"joint.most(({bits},))")
    return [f"{peaks}[{n}]" for n in range(len(rows))]


def _codes(tile: GluonRows, node: Node, rows: Sequence[str], peaks: Sequence[str], r: str) -> None:
    """The codes of each row times r, and its scale."""
    made = []
    pairs = zip(node.outputs[::2], node.outputs[1::2], strict=True)
    for (name, scale_name), row, peak in zip(pairs, rows, peaks, strict=True):
        codes, scale = tile.writer.fresh(name), tile.writer.fresh(scale_name)
        call = f"codes.coded({row}, {peak}, {r}, {node.attrs['quant_eps']!r})"
        tile.writer.add(f"{codes}, {scale} = {call}")
        made.append(Codes(name, scale_name, codes, scale))
    tile.keep_codes(made)


GLUON_ROWS: Mapping[str, Callable[[GluonRows, Node], None]] = {
    **{name: emit for name, emit in ROWS.items() if name in ROW_OPS},
    "norm_quant": _norm_quant,
    "quantize": _quantize,
}
