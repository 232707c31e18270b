"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ArtifactPath = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A compiled model, model.mmfree.")
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Threads = Annotated[
    int | None, typer.Option(help="Threads to run with; default: every CPU it may use.")
]
