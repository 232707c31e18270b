"""The source of a kernel that makes one token's rows and some columns from them: Gluon.

Every program makes the whole rows; that costs less than the kernel that would make them once. The
columns of a program are cut into pieces of a power of two. What is constant is loaded before the
kernel in front of this one has ended.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from mmfree_compiler.backends.cuda.compile.fusible import ROW_OPS
from mmfree_compiler.backends.cuda.compile.rows import ROWS, RowTile, block_size, inverse, norm_rows
from mmfree_compiler.backends.cuda.compile.shapes import Shape
from mmfree_compiler.backends.cuda.compile.tiles import Tile, epilogue
from mmfree_compiler.backends.cuda.layouts import BLOCK
from mmfree_compiler.backends.cuda.strides import round_up
from mmfree_compiler.program import Node

CODES = 16  # in a word
_FEWEST_ROWS = 8  # of a piece: one per warp


@dataclass
class FusedRows(RowTile):
    """The rows of the token; `codes` and `scales` are variables of those that products read."""

    codes: dict[str, str] = field(default_factory=dict)
    scales: dict[str, str] = field(default_factory=dict)

    def columns(self, width: int) -> tuple[str, str, str]:
        column, valid = f"column{width}", f"valid{width}"
        if column not in self.loaded:
            block = max(BLOCK, block_size(width))
            self.writer.add(
                f"{column} = tl.arange(0, {block}, ROW)", f"{valid} = {column} < {width}"
            )
            self.loaded[column] = column
        return column, valid, valid

    def keep(self, name: str) -> None:
        """No other kernel reads a row of this one."""


@dataclass
class Piece(Tile):
    """Some of a program's columns. `words` are variables of the words of each weight."""

    rows: FusedRows = field(kw_only=True)
    first: int = field(kw_only=True)
    count: int = field(kw_only=True)
    words: dict[str, str] = field(default_factory=dict)

    def begin(self) -> None:
        """The variables of its columns."""
        valid = f"valid_{self.first}"
        self.writer.add(f"column = column_{self.first}", f"valid = {valid}", f"inside = {valid}")

    def scaled_sum(self, node: Node) -> tuple[str, str]:
        codes, scale = node.inputs[:2]
        assert codes is not None
        assert scale is not None
        total = f"fused.product({self.words[node.outputs[0]]}, {self.rows.codes[codes]})"
        return total, self.rows.scales[scale]


def write(tile: Tile, shape: Shape) -> None:
    """Write the kernel of a fused part: `shape` has the columns of a program."""
    shared = tile.program, tile.tensors, tile.part, tile.writer, tile.inner
    rows = FusedRows(*shared)
    pieces = [Piece(*shared, rows=rows, first=a, count=b) for a, b in cut(shape.columns)]
    _heads(tile, shape, pieces)
    for piece in pieces:
        piece.begin()
        _load_words(piece)
        _load_constants(piece, tile.part.nodes)
    _load_constants(rows, tile.part.rows)
    tile.writer.add("dependence.wait(DEPENDENT)", "row = 0", "alive = tl.program_id(0) >= 0")
    _token(tile)
    _load_values(rows, tile.part.rows)
    for piece in pieces:
        piece.begin()
        _load_values(piece, tile.part.nodes)
    for node in tile.part.rows:
        FUSED_ROWS[node.op](rows, node)
    for piece in pieces:
        piece.begin()
        epilogue(piece)


def cut(columns: int) -> Iterator[tuple[int, int]]:
    """First column and size of pieces of a power of two that hold `columns`, largest first."""
    first = 0
    while first < columns:
        rest = columns - first
        size = 1 << (rest.bit_length() - 1)
        if size < _FEWEST_ROWS or 2 * size - rest <= rest // 8:
            size = max(_FEWEST_ROWS, 1 << (rest - 1).bit_length())
        yield first, size
        first += size


def tile_words(k: int) -> int:
    """Words in a tile of rows of k columns: the least that are read in vain, in wide loads."""
    words = round_up(k, BLOCK) // CODES
    sizes = {128: 1.0, 64: 1.05, 32: 1.2, 16: 1.4}
    return min(sizes, key=lambda size: round_up(words, size) * sizes[size])


def _heads(tile: Tile, shape: Shape, pieces: list[Piece]) -> None:
    """Layouts, and the columns of all pieces."""
    words = tile_words(tile.program.values[tile.part.codes[0]].width)
    tile.writer.add(
        f"ROW: tl.constexpr = fused.row_layout({shape.warps})",
        f"WORDS: tl.constexpr = fused.word_layout({words}, {shape.warps})",
        f"start = tl.program_id(0) * {shape.columns}",
        f"end = tl.minimum(start + {shape.columns}, {tile.width})",
    )
    for piece in pieces:
        column = f"column_{piece.first}"
        numbers = f"tl.arange(0, {piece.count}, tl.SliceLayout(1, WORDS))"
        tile.writer.add(
            f"{column} = start + {piece.first} + {numbers}",
            f"valid_{piece.first} = {column} < end",
        )


def _load_words(piece: Piece) -> None:
    for node in piece.part.nodes:
        if node.op == "ternary_linear":
            codes, _, weight = node.inputs[:3]
            assert codes is not None
            assert weight is not None
            k = piece.program.values[codes].width
            sizes = f"{round_up(k, BLOCK) // CODES}, {tile_words(k)}, WORDS"
            piece.words[node.outputs[0]] = piece.writer.bind(
                f"{node.outputs[0]}.words",
                f"fused.load_words({piece.constant(weight)}, column, {sizes})",
            )


def _token(tile: Tile) -> None:
    if tile.part.wanted:
        wanted = tile.writer.parameter("wanted", "*i32", "wanted")
        tile.writer.add(f"token = tl.load({wanted})")
    else:
        tile.writer.add("token = 0")


def _load_constants(tile: Tile, nodes: Iterable[Node]) -> None:
    """Rows and numbers; other constants are not read as a whole."""
    for node in nodes:
        for name in node.inputs:
            constant = tile.program.constants.get(name or "")
            if constant and constant.role == "row":
                tile[name]


def _load_values(tile: Tile, nodes: Iterable[Node]) -> None:
    """What other kernels made, before it is needed."""
    for node in nodes:
        for name in node.inputs:
            found = tile.program.values.get(name or "")
            if found and found.dtype == "float32" and name not in tile.part.made:
                tile[name]
        if node.op == "mlgru_scan":
            assert node.state is not None
            tile.kept(node.state)


# --- ops whose reductions several rows share ------------------------------------------------------


def _quantize(tile: FusedRows, node: Node) -> None:
    rows = [tile[node.inputs[0]]]
    _codes(tile, node, rows, _peaks(tile, rows), "1.0")


def _norm_quant(tile: FusedRows, node: Node) -> None:
    width = tile.program.values[node.outputs[0]].width
    normed, scaled = norm_rows(tile, node)
    peaks = _peaks(tile, [*normed, *scaled])
    squares = [f"reductions.squares({x}, {peak})" for x, peak in zip(normed, peaks, strict=False)]
    totals = tile.writer.bind("totals", f"fused.sums(({', '.join(squares)},))")
    means = [
        tile.writer.bind("mean", f"reductions.mean_of_squares({totals}[{n}], {peaks[n]}, {width})")
        for n in range(len(normed))
    ]
    r = tile.writer.bind("r", inverse(node, means))
    _codes(tile, node, scaled, peaks[len(normed) :], r)


def _peaks(tile: FusedRows, rows: Sequence[str]) -> list[str]:
    """The bits of the absmax of each row."""
    bits = ", ".join(f"reductions.magnitude_bits({row})" for row in rows)
    peaks = tile.writer.bind("peaks", f"fused.most(({bits},))")
    return [f"{peaks}[{n}]" for n in range(len(rows))]


def _codes(tile: FusedRows, node: Node, rows: Sequence[str], peaks: Sequence[str], r: str) -> None:
    """The codes of each row times r, in shared memory, and its scale."""
    pairs = zip(node.outputs[::2], node.outputs[1::2], strict=True)
    for (codes, scale), row, peak in zip(pairs, rows, peaks, strict=True):
        code, factor = tile.writer.fresh(codes), tile.writer.fresh(scale)
        made = f"codes.coded({row}, {peak}, {r}, {node.attrs['quant_eps']!r})"
        tile.writer.add(f"{code}, {factor} = {made}")
        tile.codes[codes] = tile.writer.bind(codes, f"fused.share({code})")
        tile.scales[scale] = factor


FUSED_ROWS: Mapping[str, Callable[[FusedRows, Node], None]] = {
    **{name: emit for name, emit in ROWS.items() if name in ROW_OPS},
    "norm_quant": _norm_quant,
    "quantize": _quantize,
}
