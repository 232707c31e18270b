"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ArtifactPath = Annotated[
    Path, typer.Argument(metavar="MODEL", help="A compiled model, model.mmfree.")
]
CheckpointPath = Annotated[
    Path,
    typer.Argument(metavar="CHECKPOINT", help="A folder: config.json and *.safetensors."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Threads = Annotated[
    int | None, typer.Option(help="Threads to run with; default: all CPUs that it may use.")
]
