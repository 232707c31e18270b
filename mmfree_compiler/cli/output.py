"""Output of commands: one JSON document or tables on stdout, errors and progress on stderr."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from rich.console import Console, RenderableType
from rich.progress import Progress, ProgressColumn
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
