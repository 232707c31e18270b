"""The source of a kernel that makes one token's rows and some columns from them: Gluon.

Every program makes the whole rows; that costs less than the kernel that would make them once. The
columns of a program are cut into pieces of a power of two. What can be is loaded before the kernel
in front of this one has ended: see early.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from mmfree_compiler.backends.cuda.compile.early import (
    load_constants,
    load_states_early,
    load_values,
)
from mmfree_compiler.backends.cuda.compile.gluon_rows import Codes, GluonRows, gluon_row_ops
from mmfree_compiler.backends.cuda.compile.kernel import WAIT
from mmfree_compiler.backends.cuda.compile.shapes import Shape
from mmfree_compiler.backends.cuda.compile.tile import Tile
from mmfree_compiler.backends.cuda.compile.tiles import epilogue
from mmfree_compiler.backends.cuda.compile.tokens import load_token
from mmfree_compiler.backends.cuda.layouts import BLOCK, FIELDS
from mmfree_compiler.backends.cuda.strides import power_of_two, round_up
from mmfree_compiler.program import Node

CODES = 4 * FIELDS  # in a word
_FEWEST_ROWS = 8  # of a piece: one per warp


@dataclass
class FusedRows(GluonRows):
    """The rows of the token; `codes` and `scales` are variables of those that products read."""

    codes: dict[str, str] = field(default_factory=dict)
    scales: dict[str, str] = field(default_factory=dict)

    def block(self, width: int) -> int:
        return max(BLOCK, super().block(width))

    def keep(self, name: str) -> None:
        """No other kernel reads a row of this one."""

    def keep_codes(self, made: Sequence[Codes]) -> None:
        for row in made:
            self.codes[row.name] = self.writer.bind(row.name, f"fused.share({row.codes})")
            self.scales[row.scale_name] = row.scale


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
    tile.writer.add("row = 0", "alive = tl.program_id(0) >= 0")
    load_token(tile)
    for piece in pieces:
        piece.begin()
        _load_words(piece)
        load_constants(piece, tile.part.nodes)
        load_states_early(piece, tile.part.nodes)
    load_constants(rows, tile.part.rows)
    tile.writer.add(WAIT)
    load_values(rows, tile.part.rows)
    for piece in pieces:
        piece.begin()
        load_values(piece, tile.part.nodes)
    gluon_row_ops(rows, tile.part.rows)
    for piece in pieces:
        piece.begin()
        epilogue(piece, tile.part.nodes)


def cut(columns: int) -> Iterator[tuple[int, int]]:
    """First column and size of pieces of a power of two that hold `columns`, largest first."""
    first = 0
    while first < columns:
        rest = columns - first
        size = 1 << (rest.bit_length() - 1)
        if size < _FEWEST_ROWS or 2 * size - rest <= rest // 8:
            size = max(_FEWEST_ROWS, power_of_two(rest))
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
        f"ROW: tl.constexpr = joint.row_layout({shape.warps})",
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
            # The last piece may have columns beyond the weight: they read its last row again.
            row = f"tl.minimum(column, {piece.width - 1})"
            piece.words[node.outputs[0]] = piece.writer.bind(
                f"{node.outputs[0]}.words",
                f"fused.load_words({piece.constant(weight)}, {row}, {sizes})",
            )
