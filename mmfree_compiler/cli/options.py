"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmfree_compiler.errors import InputError

ArtifactPath = Annotated[
    Path, typer.Argument(metavar="MODEL", help="Compiled model, a .mmfree or .onnx file.")
]
CheckpointPath = Annotated[
    Path,
    typer.Argument(
        metavar="CHECKPOINT", help="Folder with config.json and weights, or a .onnx file."
    ),
]
Signer = Annotated[
    Path | None,
    typer.Option(
        "--require-signature",
        metavar="PEM",
        help="Refuse the model unless the owner of this public Ed25519 key signed it.",
    ),
]
RunTarget = Annotated[
    list[str] | None,
    typer.Option(
        "--target",
        metavar="KIND",
        help="Target of the model to run.",
        show_default="the first that runs here",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON document instead of text.")]
Quiet = Annotated[bool, typer.Option("-q", "--quiet", help="Print no progress and no summary.")]
Progressless = Annotated[bool, typer.Option("-q", "--quiet", help="Print no progress.")]
Threads = Annotated[
    int | None, typer.Option(help="Number of threads.", show_default="one per available CPU")
]


def only(targets: list[str] | None) -> str | None:
    """The one target that `--target` names. Raises InputError where it is given more than once."""
    if targets and len(targets) > 1:
        raise InputError("--target", "is given more than once", "Name one target at a time")
    return targets[0] if targets else None
