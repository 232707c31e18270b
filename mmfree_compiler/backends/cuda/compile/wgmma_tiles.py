"""The source of a kernel of tiles whose products wgmma makes: Gluon.

See kernels/wgmma.py and product_ring.py. What needs nothing of each other is made by other
programs, and what follows the products is made for some tokens at a time, so that few sums are in
registers at once. What can be is loaded before the kernel in front of this one has ended: early.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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
class Pieces(Tile):
    """What follows the products of a program's `tokens`, for some of them at a time.

    A loop: were the lines of each piece in turn, their instructions would not fit into the cache of
    a multiprocessor.
    """

    tokens: int = field(kw_only=True)

    @property
    def size(self) -> int:
        """The tokens of a piece."""
        return min(_PIECE, self.tokens)

    @property
    def count(self) -> int:
        return self.tokens // self.size

    def begin(self, first: str) -> None:
        """The variables of a piece's rows."""
        some_rows(self, first, f"{self.size}, tl.SliceLayout(0, SUMS)", "None, :")

    def write(self, nodes: Iterable[Node], sums: Mapping[str, str]) -> None:
        """The lines of all pieces; `sums` are variables of those of each, by the product."""
        self.sums = {name: f"{variable}[0]" for name, variable in sums.items()}
        if self.count == 1:
            epilogue(self, nodes)
            return
        with self.writer.block(f"for piece in range({self.count}):"):
            self.begin(f"first + piece * {self.size}")
            epilogue(self, nodes)
            for variable in sums.values():
                self.writer.add(f"{variable} = {variable}[1:] + {variable}[:1]")


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
    nodes: list[Node]
    done: int = 0

    @property
    def few(self) -> bool:
        """Whether tokens are so few that reading the weights takes longer than to multiply."""
        return self.shape.tokens <= _PIECE

    def start_weights(self) -> None:
        """Point at all weights, and copy the first pieces."""
        for node in self.nodes:
            rows = f"ring, {self.tile.constant(str(node.inputs[2]))}, first_column, {self._k(node)}"
            found = self.tile.writer.bind("weight", f"product_ring.weight_rows({rows})")
            self.tile.loaded[self._weight(node)] = found
            if self.few:
                self.tile.writer.add(f"product_ring.prefetch({rows})")
        first = self.nodes[0]
        rows = self.tile.loaded[self._weight(first)]
        self.tile.writer.add(f"product_ring.start_weight(ring, {rows}, {self._k(first)})")

    def start_codes(self) -> None:
        """Point at all codes, and copy the first pieces."""
        for codes in dict.fromkeys(str(node.inputs[0]) for node in self.nodes):
            pointer, stride = self.tile.rows_of(codes)
            rows = f"product_ring.code_rows(ring, {pointer}, {stride}, first, count)"
            self.tile.loaded[codes] = self.tile.writer.bind(codes, rows)
        first = self.nodes[0]
        codes = self.tile.loaded[str(first.inputs[0])]
        self.tile.writer.add(f"product_ring.start_codes(ring, {codes}, {self._k(first)})")

    def products(self, pieces: int) -> dict[str, str]:
        """The variables of the sums of all products, cut into pieces, by their outputs."""
        return {
            node.outputs[0]: self._product(node, self.nodes[n + 1 : n + 2], pieces)
            for n, node in enumerate(self.nodes)
        }

    def _product(self, node: Node, later: Sequence[Node], pieces: int) -> str:
        """The variable of the sums of a product, in front of the `later` one, if there is one."""
        k = self._k(node)
        after, k_after = "()", k
        if later:
            after, k_after = f"({self._rows(later[0])})", self._k(later[0])
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
    steps = steps_of(tile.program, tile.part.nodes)
    columns = -(-tile.width // shape.columns)
    least = min(tile.depth(codes) for codes in tile.part.codes)
    tile.writer.add(
        f"SUMS: tl.constexpr = wgmma.sum_layout({min(_PIECE, shape.tokens)}, {shape.warps})",
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
            _step(own, shape, step)
    if tile.part.beside:
        with tile.writer.block("if tl.program_id(0) + tl.program_id(1) == 0:"):
            tile.writer.add(WAIT)
    return columns * len(steps)


def _step(tile: Tile, shape: Shape, step: Step) -> None:
    """What programs do that make a step."""
    ring = Ring(tile, shape, step.products)
    ring.start_weights()
    load_constants(tile, step.nodes)
    pieces = Pieces(**vars(tile) | {"loaded": dict(tile.loaded)}, tokens=shape.tokens)
    if pieces.count == 1:
        pieces.begin("first")
        load_states_early(pieces, step.nodes)
    if not tile.part.beside:
        tile.writer.add(WAIT)
    with tile.writer.block("if first < count:"):
        ring.start_codes()
        if pieces.count == 1:
            load_values(pieces, step.nodes)
        pieces.write(step.nodes, ring.products(pieces.count))
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
