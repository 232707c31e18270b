"""The source of a kernel that goes through a sequence without products: Gluon.

What other kernels made comes through rings of shared memory: kernels/row_ring.py. The tokens of a
block have no loop, so that what one reads is loaded while others are computed; those at the end,
which fill no block, have one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from mmfree_compiler.backends.cuda.compile.early import (
    load_constants,
    load_states,
    load_states_early,
    rows_of_others,
)
from mmfree_compiler.backends.cuda.compile.scans import ScanTile
from mmfree_compiler.backends.cuda.compile.shapes import Shape
from mmfree_compiler.backends.cuda.compile.tiles import epilogue
from mmfree_compiler.backends.cuda.compile.tokens import wait

MOST_UNROLLED = 4  # nodes: with more, a block would have thousands of instructions
_NOT_ROWS = frozenset({"embedding", "ternary_linear"})  # ops that read more than rows of columns


@dataclass
class RingTile(ScanTile):
    """Columns of one sequence; values that other kernels made come from rings."""

    @property
    def ringed(self) -> list[str]:
        """The values in rings, in order: none if the part reads anything else for each token."""
        nodes = self.part.nodes
        if _NOT_ROWS & {node.op for node in nodes}:
            return []
        return list(dict.fromkeys(name for node in nodes for name in rows_of_others(self, node)))

    def _load(self, name: str) -> str:
        if name in self.program.constants:
            return super()._load(name)
        ring = f"rings[{self.ringed.index(name)}]"
        return self.writer.bind(name, f"{ring}.index(slot + n).load(COLUMNS)")


def write(tile: RingTile, shape: Shape) -> None:
    """Write the kernel: `shape` has the columns of a program and the tokens of a block."""
    size = shape.block_tokens
    tile.writer.add(
        f"COLUMNS: tl.constexpr = row_ring.column_layout({shape.warps})",
        f"column = tl.program_id(0) * {shape.columns} + tl.arange(0, {shape.columns}, COLUMNS)",
        f"valid = column < {tile.width}",
    )
    tile.begin()
    load_constants(tile, tile.part.nodes)
    load_states_early(tile, tile.part.nodes)
    wait(tile, "alive")
    pointers, strides = zip(*map(tile.rows_of, tile.ringed), strict=True)
    rows = f"({', '.join(pointers)},), {strides}, first, end"
    tile.writer.add(f"rings = row_ring.opened({rows}, STAGES, {size}, {shape.columns})")
    load_states(tile, tile.part.nodes)
    tile.writer.add(f"whole = (end - first) // {size}")
    unrolled = "tl.static_range" if len(tile.part.nodes) <= MOST_UNROLLED else "range"
    with tile.writer.block("for block in range(whole):"):
        tile.writer.add("row_ring.wait(STAGES - 1)")
        _tokens(tile, "block", size, f"{unrolled}({size})")
        tile.writer.add(f"row_ring.fill(rings, {rows}, block + STAGES, {size})")
    tile.writer.add("row_ring.wait(0)")
    _tokens(tile, "whole", size, f"range((end - first) % {size})")
    tile.store_states()


def _tokens(tile: RingTile, block: str, size: int, numbers: str) -> None:
    """The lines of the tokens of a block with these numbers.

    64 bits make the distance of their rows a constant of each store.
    """
    tile.writer.add(
        f"start = (first + {block} * {size}).to(tl.int64)",
        f"slot = {block} % STAGES * {size}",
    )
    body = replace(tile, loaded=dict(tile.loaded))
    with tile.writer.block(f"for n in {numbers}:"):
        tile.writer.add("row = start + n")
        epilogue(body, tile.part.nodes)
        body.carry_states()
