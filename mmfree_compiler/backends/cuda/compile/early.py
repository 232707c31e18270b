"""Loading what a kernel reads before it is needed: latencies overlap.

What no kernel of a call writes is read before the kernel in front has ended: constants, indices,
and states but in the first kernel.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mmfree_compiler.backends.cuda.compile.tile import Tile
from mmfree_compiler.program import Node


def load_constants(tile: Tile, nodes: Iterable[Node]) -> None:
    """Rows and numbers; other constants are not read as a whole."""
    for node in nodes:
        for name in node.inputs:
            constant = tile.program.constants.get(name or "")
            if constant and constant.role == "row":
                tile[name]
            if constant and constant.role == "taps":
                tile.taps(constant.name)


def load_states_early(tile: Tile, nodes: Iterable[Node]) -> None:
    """Those before this token, before the kernel in front has ended.

    What wrote them came before the first kernel of the call, and that one has ended then.
    """
    if not tile.part.first:
        load_states(tile, nodes)


def load_states(tile: Tile, nodes: Iterable[Node]) -> None:
    """Those before this token; of a scan, before the first one."""
    for node in nodes:
        for name, offset in tile.state_rows(node):
            tile.kept(name, offset)


def load_values(tile: Tile, nodes: Iterable[Node]) -> None:
    """What other kernels made: rows, scales, states."""
    load_states(tile, nodes)
    for node in nodes:
        for name in rows_of_others(tile, node):
            tile[name]
        if node.op == "ternary_linear" and node.inputs[1] not in tile.part.made:
            tile.scale(node)


def rows_of_others(tile: Tile, node: Node) -> Iterator[str]:
    """Rows that a node reads as they are: not the codes of a product, nor their scale."""
    for name in node.inputs[2:] if node.op == "ternary_linear" else node.inputs:
        found = tile.program.values.get(name or "")
        if found and found.dtype == "float32" and found.name not in tile.part.made:
            yield found.name
