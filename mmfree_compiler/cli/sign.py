"""`mmfree sign`: signs a compiled model, so that others can know who made it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmfree_compiler.cli.options import ArtifactPath, Json
from mmfree_compiler.cli.output import emit
from mmfree_compiler.tables import facts


def sign(
    model: ArtifactPath,
    key: Annotated[
        Path,
        typer.Option(metavar="PEM", help="Private Ed25519 key, as `openssl genpkey` makes it."),
    ],
    json: Json = False,
) -> None:
    """Sign a compiled model with an Ed25519 key; `--require-signature` checks it."""
    from mmfree_compiler.backends import files

    public = files.sign(model, key)
    emit(json, {"model": str(model), "public_key": public}, facts([("signed by", public)]))
