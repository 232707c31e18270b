"""`mmfree doctor`: shows what this machine can do, and how to fix the rest."""

from __future__ import annotations

from dataclasses import asdict
from typing import Annotated

import typer
from rich.table import Table
from rich.text import Text

from mmfree_compiler.cli.options import Json
from mmfree_compiler.cli.output import emit

COLORS = {"ok": "green", "missing": "yellow", "failed": "red", "elsewhere": "dim"}


def doctor(
    deep: Annotated[
        bool, typer.Option("--deep", help="Also compile and run a tiny model.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what this machine can compile and run; exit with code 1 if something is broken."""
    from mmfree_compiler.doctor import examine

    checks = examine(deep)
    healthy = all(check.status != "failed" for check in checks)
    table = Table(box=None, pad_edge=False, show_header=False)
    for check in checks:
        status = Text(check.status, COLORS[check.status])
        table.add_row(status, Text(check.name, "bold"), Text(check.found), Text(check.hint))
    emit(json, {"healthy": healthy, "checks": [asdict(check) for check in checks]}, table)
    if not healthy:
        raise typer.Exit(1)
