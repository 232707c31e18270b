"""The source of a kernel of tiles whose products wgmma makes: Gluon.

See kernels/wgmma.py and product_ring.py. What needs nothing of each other is made by other
programs, and what follows the products is made for some tokens at a time, so that few sums are in
registers at once. What can be is loaded before the kernel in front of this one has ended: early.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace

from mmfree_compiler.backends.cuda.compile.early import (
    load_constants,
    load_states_early,
    load_values,
)
from mmfree_compiler.backends.cuda.compile.kernel import WAIT
from mmfree_compiler.backends.cuda.compile.planned import PlannedProgram
from mmfree_compiler.backends.cuda.compile.shapes import Shape
from mmfree_compiler.backends.cuda.compile.tile import Tile
from mmfree_compiler.backends.cuda.compile.tiles import epilogue
from mmfree_compiler.backends.cuda.compile.tokens import program_rows, some_rows
from mmfree_compiler.backends.cuda.layouts import BLOCK
from mmfree_compiler.program import Node

_PIECE = 32  # tokens, of 16 columns in a warp: for more, registers do not suffice
_SIDE_BY_SIDE = 64  # tokens of the sums that are made side by side


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
    """Products and what is made of them, in the order of the program."""

    nodes: tuple[Node, ...]

    @property
    def products(self) -> list[Node]:
        return [node for node in self.nodes if node.op == "ternary_linear"]


@dataclass
class Ring:
    """Emits products of a tile in order; `done` pieces went through the ring before."""

    tile: Tile
    shape: Shape
    products: list[Node]
    done: int = 0

    @property
    def few(self) -> bool:
        """Whether tokens are so few that reading the weights takes longer than to multiply."""
        return self.shape.tokens <= _PIECE

    def start_weights(self) -> None:
        """Point at all weights, and copy the first pieces."""
        for node in self.products:
            rows = f"ring, {self.tile.constant(str(node.inputs[2]))}, first_column, {self._k(node)}"
            found = self.tile.writer.bind("weight", f"product_ring.weight_rows({rows})")
            self.tile.loaded[self._weight(node)] = found
            if self.few:
                self.tile.writer.add(f"product_ring.prefetch({rows})")
        first = self.products[0]
        rows = self.tile.loaded[self._weight(first)]
        self.tile.writer.add(f"product_ring.start_weight(ring, {rows}, {self._k(first)})")

    def start_codes(self) -> None:
        """Point at all codes, and copy the first pieces."""
        for codes in dict.fromkeys(str(node.inputs[0]) for node in self.products):
            pointer, stride = self.tile.rows_of(codes)
            rows = f"product_ring.code_rows(ring, {pointer}, {stride}, first, count)"
            self.tile.loaded[codes] = self.tile.writer.bind(codes, rows)
        first = self.products[0]
        codes = self.tile.loaded[str(first.inputs[0])]
        self.tile.writer.add(f"product_ring.start_codes(ring, {codes}, {self._k(first)})")

    def product(self, node: Node, pieces: int) -> str:
        """The variable of the sums of the next product, cut into pieces."""
        assert self.products.pop(0) is node
        k = self._k(node)
        after, k_after = "()", k
        if self.products:
            after, k_after = f"({self._rows(self.products[0])})", self._k(self.products[0])
        parts = max(1, _SIDE_BY_SIDE // self.shape.tokens)
        call = f"ring, {self._rows(node)}, {k}, {self.done}, {after}, {k_after}, {parts}, ASM"
        self.done += -(-k // self.shape.block_k)
        return self.tile.writer.bind("sums", f"wgmma.cut(wgmma.product({call}), {pieces})")

    def _rows(self, node: Node) -> str:
        loaded = self.tile.loaded
        return f"{loaded[str(node.inputs[0])]}, {loaded[self._weight(node)]}"

    def _weight(self, node: Node) -> str:
        return f"{node.outputs[0]} weight"

    def _k(self, node: Node) -> int:
        return self.tile.depth(str(node.inputs[0]))


def write(tile: Tile, shape: Shape) -> int:
    """Write a kernel in which a program makes a `shape` of columns and tokens, of one step.

    Returns how many programs make the columns.
    """
    steps, size = steps_of(tile.program, tile.part.nodes), min(_PIECE, shape.tokens)
    columns = -(-tile.width // shape.columns)
    least = min(tile.depth(codes) for codes in tile.part.codes)
    tile.writer.add(
        f"SUMS: tl.constexpr = wgmma.sum_layout({size}, {shape.warps})",
        f"SLOTS: tl.constexpr = min(STAGES, {1 + -(-least // shape.block_k)})",
        f"DEPTH: tl.constexpr = {shape.block_k // BLOCK}",
        f"ring = product_ring.allocate({shape.tokens}, {shape.columns}, DEPTH, SLOTS)",
        f"first_column = tl.program_id(0) % {columns} * {shape.columns}",
        f"column = first_column + tl.arange(0, {shape.columns}, tl.SliceLayout(1, SUMS))[:, None]",
        f"valid = column < {tile.width}",
    )
    program_rows(tile, shape.tokens)
    for number, step in enumerate(steps):
        own = replace(tile, loaded=dict(tile.loaded))
        with own.writer.block(f"if tl.program_id(0) // {columns} == {number}:"):
            _step(own, shape, step, size)
    return columns * len(steps)


def _step(tile: Tile, shape: Shape, step: Step, size: int) -> None:
    """What programs do that make a step."""
    ring = Ring(tile, shape, step.products)
    ring.start_weights()
    load_constants(tile, step.nodes)
    pieces = [
        Piece(**vars(tile) | {"loaded": dict(tile.loaded), "first": first})
        for first in range(0, shape.tokens, size)
    ]
    if ring.few:
        pieces[0].begin(size)
        load_states_early(pieces[0], step.nodes)
    tile.writer.add(WAIT)
    with tile.writer.block("if first < count:"):
        ring.start_codes()
        if ring.few:
            load_values(pieces[0], step.nodes)
        sums = {node.outputs[0]: ring.product(node, len(pieces)) for node in step.products}
        for number, piece in enumerate(pieces):
            if not ring.few:
                piece.begin(size)
            piece.sums = {name: f"{cut}[{number}]" for name, cut in sums.items()}
            epilogue(piece, step.nodes)
    tile.writer.add("product_ring.end_copies()")


def steps_of(program: PlannedProgram, nodes: Sequence[Node]) -> list[Step]:
    """Nodes by what they need of each other: a step reads nothing that another one makes.

    What needs no product is done in the first step.
    """
    groups: list[list[Node]] = []
    for node in nodes:
        near = [group for group in groups if any(_meet(program, node, x) for x in group)]
        joined = [other for group in near for other in group]
        groups = [group for group in groups if group not in near] + [[*joined, node]]
    first, *others = sorted(groups, key=lambda group: -len(Step(tuple(group)).products))
    apart = [group for group in others if Step(tuple(group)).products]
    first += [node for group in others if group not in apart for node in group]
    order = {node.outputs: index for index, node in enumerate(nodes)}
    return [
        Step(tuple(sorted(group, key=lambda node: order[node.outputs])))
        for group in (first, *apart)
    ]


def _meet(program: PlannedProgram, one: Node, other: Node) -> bool:
    """Whether a node reads what the other one makes, or what is then overwritten."""

    def places(names: Iterable[str | None]) -> set[object]:
        return {program.places.get(name, name) for name in names if name is not None}

    made = places(one.outputs), places(other.outputs)
    return bool(made[0] & places(other.inputs) or made[1] & places(one.inputs))
