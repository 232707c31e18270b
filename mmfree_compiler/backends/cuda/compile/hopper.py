"""The source of a kernel of tiles whose products Hopper's tensor cores make: Gluon.

See kernels/wgmma.py. Products are made just before they are used, so that few sums are in registers
at once, and what follows them is made for some tokens at a time. What can be is loaded before the
kernel in front of this one has ended: see early.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field, replace

from mmfree_compiler.backends.cuda.compile.early import load_constants, load_states, load_values
from mmfree_compiler.backends.cuda.compile.shapes import Shape
from mmfree_compiler.backends.cuda.compile.tile import Tile
from mmfree_compiler.backends.cuda.compile.tiles import epilogue
from mmfree_compiler.backends.cuda.compile.tokens import program_rows, some_rows, wait
from mmfree_compiler.backends.cuda.layouts import BLOCK, FIELDS
from mmfree_compiler.program import Node

_PIECE = 32  # tokens, of 16 columns in a warp: for more, registers do not suffice


@dataclass
class Piece(Tile):
    """Some of a program's tokens, from `first` of them on."""

    first: int = field(kw_only=True)

    def begin(self, tokens: int) -> None:
        """The variables of its rows."""
        first = f"first + {self.first}" if self.first else "first"
        some_rows(self, first, f"{tokens}, tl.SliceLayout(0, SUMS)", "None, :")


@dataclass(frozen=True)
class Step:
    """Products, and what follows them before the next product."""

    products: tuple[Node, ...] = ()
    nodes: tuple[Node, ...] = ()


@dataclass
class Ring:
    """Emits the products of a tile in order; `done` blocks went through the ring before."""

    tile: Tile
    products: list[Node]
    parts: int
    done: int = 0

    @property
    def least_blocks(self) -> int:
        """Those of the weight that has the fewest."""
        return min(-(-self._depth(node) // BLOCK) for node in self.products)

    def start_weights(self, prefetch: bool) -> None:
        """Point at all weights, and copy the first blocks."""
        for node in self.products:
            k = self._depth(node)
            rows = f"{self.tile.constant(str(node.inputs[2]))}, first_column, {k}, ring"
            found = self.tile.writer.bind("weight", f"wgmma.weight_rows({rows})")
            self.tile.loaded[self._weight(node)] = found
            if prefetch:
                self.tile.writer.add(f"wgmma.prefetch({rows})")
        first = self.tile.loaded[self._weight(self.products[0])]
        self.tile.writer.add(f"wgmma.start_weight(ring, {first})")

    def start_codes(self) -> None:
        """Point at all codes, and copy the first blocks."""
        for codes in dict.fromkeys(str(node.inputs[0]) for node in self.products):
            pointer, stride = self.tile.rows_of(codes)
            rows = f"wgmma.code_rows({pointer}, {stride}, first, count, ring)"
            self.tile.loaded[codes] = self.tile.writer.bind(codes, rows)
        first = self.products[0]
        codes = self.tile.loaded[str(first.inputs[0])]
        self.tile.writer.add(f"wgmma.start_codes(ring, {codes}, {self._depth(first)})")

    def product(self, node: Node, pieces: int) -> str:
        """The variable of the sums of the next product, cut into pieces."""
        assert self.products.pop(0) is node
        k = self._depth(node)
        after, k_after = "()", k
        if self.products:
            after, k_after = f"({self._rows(self.products[0])})", self._depth(self.products[0])
        call = f"ring, {self._rows(node)}, {k}, {self.done}, {after}, {k_after}, {self.parts}, ASM"
        self.done += -(-k // BLOCK)
        return self.tile.writer.bind("sums", f"wgmma.cut(wgmma.product({call}), {pieces})")

    def _rows(self, node: Node) -> str:
        loaded = self.tile.loaded
        return f"{loaded[str(node.inputs[0])]}, {loaded[self._weight(node)]}"

    def _weight(self, node: Node) -> str:
        return f"{node.outputs[0]} weight"

    def _depth(self, node: Node) -> int:
        return self.tile.depth(str(node.inputs[0]))


def write(tile: Tile, shape: Shape) -> None:
    """Write a kernel in which a program makes a `shape` of columns and tokens."""
    steps, size = steps_of(tile.part.nodes), min(_PIECE, shape.tokens)
    few = size == shape.tokens
    ring = Ring(tile, [x for step in steps for x in step.products], FIELDS if few else 1)
    _heads(tile, shape, size, ring)
    ring.start_weights(prefetch=few)
    load_constants(tile, tile.part.nodes)
    pieces = [_piece(tile, first) for first in range(0, shape.tokens, size)]
    if few:
        pieces[0].begin(size)
        load_states(pieces[0], tile.part.nodes)
    wait(tile, "first < count", "wgmma.end_copies()")
    ring.start_codes()
    if few:
        load_values(pieces[0], tile.part.nodes)
    for step in steps:
        sums = {node.outputs[0]: ring.product(node, len(pieces)) for node in step.products}
        for number, piece in enumerate(pieces):
            if not few:
                piece.begin(size)
            piece.sums |= {name: f"{pieces_of}[{number}]" for name, pieces_of in sums.items()}
            epilogue(piece, (*step.products, *step.nodes))


def steps_of(nodes: Iterable[Node]) -> list[Step]:
    """Nodes in their order, but each product in the step of what reads it first."""
    nodes = tuple(nodes)
    waiting = {node.outputs[0]: node for node in nodes if node.op == "ternary_linear"}
    steps = [Step()]
    for node in nodes:
        if node.op != "ternary_linear":
            read = [waiting.pop(name) for name in dict.fromkeys(node.inputs) if name in waiting]
            if read:
                steps.append(Step(tuple(read)))
            steps[-1] = replace(steps[-1], nodes=(*steps[-1].nodes, node))
    return [step for step in steps if step != Step()] + [Step((x,)) for x in waiting.values()]


def _heads(tile: Tile, shape: Shape, size: int, ring: Ring) -> None:
    """Layouts, the ring, and what a program makes."""
    tile.writer.add(
        f"SUMS: tl.constexpr = wgmma.sum_layout({size}, {shape.warps})",
        f"ring = wgmma.ring({shape.tokens}, {shape.columns}, min(STAGES, {1 + ring.least_blocks}))",
        f"first_column = tl.program_id(0) * {shape.columns}",
        f"column = first_column + tl.arange(0, {shape.columns}, tl.SliceLayout(1, SUMS))[:, None]",
        f"valid = column < {tile.width}",
    )
    program_rows(tile, shape.tokens)


def _piece(tile: Tile, first: int) -> Piece:
    shared = tile.program, tile.tensors, tile.part, tile.writer, tile.inner
    return Piece(*shared, dict(tile.loaded), first=first)
