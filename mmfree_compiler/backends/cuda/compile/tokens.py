"""The tokens of a launch: all of a call, or those whose outputs are wanted.

Which they are is known before the kernel in front of this one has ended.
"""

from __future__ import annotations

from mmfree_compiler.backends.cuda.compile.kernel import WAIT
from mmfree_compiler.backends.cuda.compile.tile import Tile
from mmfree_compiler.backends.cuda.facts import Over


def over(tile: Tile) -> Over:
    """What the launch of a tile's kernel is over."""
    return "wanted" if tile.part.wanted else "tokens"


def one_row(tile: Tile) -> None:
    """The variables of the row that a program makes, of several tokens."""
    tile.writer.add("row = tl.program_id(1)", f"alive = row < {_count(tile)}")
    load_token(tile)


def program_rows(tile: Tile, tokens: int) -> None:
    """The variables of the first of `tokens` rows that a program makes, and of their end."""
    tile.writer.add(f"count = {_count(tile)}", f"first = tl.program_id(1) * {tokens}")


def some_rows(tile: Tile, first: str, size: str, axes: str) -> None:
    """The variables of rows from `first` on: as many as arange(0, size), at an index."""
    tile.writer.add(
        f"row = {first} + tl.arange(0, {size})[{axes}]",
        "alive = row < count",
        "inside = alive & valid",
    )
    load_token(tile)


def load_token(tile: Tile) -> None:
    """The variable `token` of `row`."""
    if not tile.part.wanted:
        tile.writer.add("token = row")
        return
    wanted = tile.writer.parameter("wanted", "*i32", "wanted")
    tile.writer.add(f"token = tl.load({wanted} + row, mask=alive, other=0)")


def wait(tile: Tile, alive: str) -> None:
    """Wait for the kernel in front; a program that has no rows ends."""
    tile.writer.add(WAIT, f"if not ({alive}):", "    return")


def _count(tile: Tile) -> str:
    """How many rows there are: a launch may have programs for more."""
    offset = 4 * tile.part.wanted
    return f"tl.load({tile.writer.parameter('counts', '*i32', 'counts', offset)})"
