"""The source of a kernel that makes one token's rows and some columns from them: Gluon.

Every program makes the whole rows; that costs less than the kernel that would make them once. Its
products are cut into pieces of a power of two columns. What can be is loaded before the kernel in
front of this one has ended: see early.py.
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
_LANES = 32  # of a warp


@dataclass
class FusedRows(GluonRows):
    """The rows of the token; `codes` and `scales` are variables of those that products read."""

    codes: dict[str, str] = field(default_factory=dict)
    scales: dict[str, str] = field(default_factory=dict)

    def keep(self, name: str) -> None:
        """No other kernel reads a row of this one."""

    def keep_codes(self, made: Sequence[Codes]) -> None:
        for row in made:
            self.codes[row.name] = self.writer.bind(row.name, f"fused.share({row.codes})")
            self.scales[row.scale_name] = row.scale


@dataclass
class Columns(Tile):
    """The columns of a program. `words` are variables of each weight's words, piece by piece."""

    rows: FusedRows = field(kw_only=True)
    shape: Shape = field(kw_only=True)
    words: dict[str, list[str]] = field(default_factory=dict)

    @property
    def products(self) -> list[Node]:
        return [node for node in self.part.nodes if node.op == "ternary_linear"]

    def multiply(self) -> None:
        """Make the sums of all products at once: they cross the program once."""
        words, codes = "", ""
        for node in self.products:
            words += f"({', '.join(self.words[node.outputs[0]])},), "
            codes += f"{self.rows.codes[node.inputs[0] or '']}, "
        made = f"fused.products(({words}), ({codes}), {block_of(self.shape)})"
        sums = self.writer.bind("sums", made)
        self.sums = {node.outputs[0]: f"{sums}[{n}]" for n, node in enumerate(self.products)}

    def scaled_sum(self, node: Node) -> tuple[str, str]:
        return self.sums[node.outputs[0]], self.rows.scales[node.inputs[1] or ""]


def write(tile: Tile, shape: Shape) -> None:
    """Write the kernel of a fused part: `shape` has the columns of a program."""
    shared = tile.program, tile.tensors, tile.part, tile.writer, tile.inner
    rows = FusedRows(*shared, warps=shape.warps)
    columns = Columns(*shared, rows=rows, shape=shape)
    _head(columns)
    load_token(tile)
    _load_words(columns)
    load_constants(columns, tile.part.nodes)
    load_states_early(columns, tile.part.nodes)
    load_constants(rows, tile.part.rows)
    tile.writer.add(WAIT)
    load_values(rows, tile.part.rows)
    load_values(columns, tile.part.nodes)
    gluon_row_ops(rows, tile.part.rows)
    columns.multiply()
    epilogue(columns, tile.part.nodes)


def block_of(shape: Shape) -> int:
    """Columns in the block that holds those of a program: at least one for each lane of a warp."""
    return max(_LANES, power_of_two(sum(size for _, size in cut(shape.columns))))


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


def _head(tile: Columns) -> None:
    """Layouts, the columns, and the row of the token."""
    shape, words = tile.shape, tile_words(tile.depth(tile.part.codes[0]))
    numbers = f"tl.arange(0, {block_of(shape)}, row_ring.column_layout({shape.warps}))"
    tile.writer.add(
        f"ROW: tl.constexpr = joint.row_layout({shape.warps})",
        f"WORDS: tl.constexpr = fused.word_layout({words}, {shape.warps})",
        f"start = tl.program_id(0) * {shape.columns}",
        f"column = start + {numbers}",
        f"valid = column < tl.minimum(start + {shape.columns}, {tile.width})",
        "inside = valid",
        "row = 0",
        "alive = tl.program_id(0) >= 0",
    )


def _load_words(tile: Columns) -> None:
    """The last piece may have columns beyond the weight: they read its last row again."""
    for first, count in cut(tile.shape.columns):
        numbers = f"tl.arange({first}, {first + count}, tl.SliceLayout(1, WORDS))"
        rows = tile.writer.bind("rows", f"tl.minimum(start + {numbers}, {tile.width - 1})")
        for node in tile.products:
            weight, k = node.inputs[2] or "", tile.depth(node.inputs[0] or "")
            sizes = f"{round_up(k, BLOCK) // CODES}, {tile_words(k)}, WORDS"
            load = f"fused.load_words({tile.constant(weight)}, {rows}, {sizes})"
            words = tile.writer.bind(f"{node.outputs[0]}.words", load)
            tile.words.setdefault(node.outputs[0], []).append(words)
