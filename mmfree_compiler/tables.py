"""Tables of text for people: names in them come from files and do nothing to a terminal."""

from __future__ import annotations

from collections.abc import Iterable

from rich.filesize import decimal
from rich.table import Table
from rich.text import Text

from mmfree_compiler.wording import printable


def facts(rows: Iterable[tuple[str, str]], title: str | None = None) -> Table:
    """A table of names and values."""
    table = _table(title, show_header=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for name, value in rows:
        table.add_row(*map(_cell, (name, value)))
    return table


def grid(title: str, header: Iterable[str], rows: Iterable[Iterable[str]]) -> Table:
    """A table with a header line; all columns but the first are right-aligned."""
    table = _table(title)
    for index, name in enumerate(header):
        table.add_column(name, justify="right" if index else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(_cell, row))
    return table


def _table(title: str | None, show_header: bool = True) -> Table:
    named = None if title is None else _cell(title, "table.title")
    return Table(
        title=named, title_justify="left", show_header=show_header, box=None, pad_edge=False
    )


def _cell(value: str, style: str = "") -> Text:
    """Text that is not markup and does nothing to the terminal: names come from files."""
    return Text(printable(value), style)


def size(nbytes: float) -> str:
    """A number of bytes in decimal units: "1.3 MB"."""
    return decimal(round(nbytes))
