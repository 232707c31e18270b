"""`mmfree disasm`: shows the instructions of a compiled model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from mmfree_compiler.cli.options import ArtifactPath, Json
from mmfree_compiler.cli.output import emit, show
from mmfree_compiler.errors import InputError

if TYPE_CHECKING:
    from mmfree_compiler.artifact import Artifact


def disasm(
    model: ArtifactPath,
    program: Annotated[
        str | None, typer.Option(help="Name of one program to show.", show_default="all")
    ] = None,
    json: Json = False,
) -> None:
    """Show the instructions of a model, for targets that have an assembly language of their own."""
    from mmfree_compiler.backends import files

    programs = _programs(files.read(model))
    if not programs:
        hint = "`mmfree inspect` shows what it holds"
        raise InputError(str(model), "has no target with instructions to show", hint)
    if program is not None and program not in programs:
        known = f"Known: {', '.join(programs)}"
        raise InputError(f"--program {program}", "is not a program of the model", known)
    shown = {name: text for name, text in programs.items() if program in (None, name)}
    emit(json, {"programs": shown}, quiet=True)
    if not json:  # not through rich, which would wrap long instructions
        show("\n".join(f"# {name}\n{text.rstrip()}\n" for name, text in shown.items()))


def _programs(artifact: Artifact) -> dict[str, str]:
    from mmfree_compiler import backends
    from mmfree_compiler.backends.interface import Listing

    found: dict[str, str] = {}
    for view in artifact.targets:
        backend = backends.get(view.entry.kind)
        if isinstance(backend, Listing):
            found |= backend.listing(view)
    return found
