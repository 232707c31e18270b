"""Output of commands: one JSON document or tables on stdout, errors and progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping
from contextlib import suppress
from typing import Any

from rich.console import Console, RenderableType
from rich.filesize import decimal
from rich.progress import Progress, ProgressColumn
from rich.table import Table
from rich.text import Text

from mmfree_compiler.wording import printable


def emit(
    as_json: bool, document: Mapping[str, Any], *shown: RenderableType, quiet: bool = False
) -> None:
    """Print `document` as JSON, or else, unless `quiet`, `shown`: the same facts for people."""
    if as_json:
        # Flushed here, as rich does: an error that stdout raises when Python ends is lost.
        print(json.dumps(document, indent=1, allow_nan=False, default=str), flush=True)
    elif not quiet:
        Console(highlight=False).print(*shown, sep="\n")


def show(text: str) -> None:
    """Print text of a model without a new line. On a terminal it cannot act as commands to it."""
    print(printable(text) if sys.stdout.isatty() else text, end="", flush=True)


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


def progress(*columns: str | ProgressColumn, quiet: bool) -> Progress:
    """A progress display on stderr, unless `quiet` or not a terminal; it is cleared at the end."""
    console = Console(stderr=True)
    return Progress(
        *columns, console=console, transient=True, disable=quiet or not console.is_terminal
    )


def say(sentence: str) -> None:
    """Print a line on stderr, if it is still there: a terminal that closes sends SIGHUP."""
    with suppress(OSError):
        Console(stderr=True, highlight=False, soft_wrap=True).print(Text(f"mmfree: {sentence}"))


def print_error(message: str) -> None:
    """Print one line on stderr, in red if that is a terminal."""
    line = " ".join(printable(message).split())
    Console(stderr=True, highlight=False, soft_wrap=True).print(Text(f"mmfree: {line}", "red"))
    sys.stderr.flush()
