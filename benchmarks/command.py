"""Running a function as a command."""

from __future__ import annotations

import sys
from collections.abc import Callable

import typer

from mmfree_compiler.errors import MmfreeError


def run(main: Callable[..., None]) -> None:
    """With the arguments of the process; errors of the project end it with one line."""
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(main)
    try:
        app()
    except MmfreeError as error:
        sys.exit(str(error))
