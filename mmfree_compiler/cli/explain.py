"""`mmfree explain`: what the compiler does to a model, and what comes out of it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from mmfree_compiler.cli.options import Quiet, Threads
from mmfree_compiler.cli.output import print_error, progress
from mmfree_compiler.errors import InputError
from mmfree_compiler.target import DEFAULT_TARGET, parse_targets

if TYPE_CHECKING:
    from mmfree_compiler.checking import Check
    from mmfree_compiler.explaining import Explanation

SAVED = ".mmfree"
FAILED = 1
FORMATS: dict[str, Callable[[Explanation, bool], str]] = {
    "text": lambda explanation, notes: explanation.text(notes) + "\n",
    "json": lambda explanation, _: explanation.json() + "\n",
    "html": lambda explanation, _: explanation.html(),
}


def explain(
    model: Annotated[
        Path,
        typer.Argument(
            metavar="MODEL", help="Checkpoint folder or .onnx file, or a compiled .mmfree file."
        ),
    ],
    target: Annotated[
        list[str] | None,
        typer.Option(help="Target to compile for; may be repeated.", show_default=DEFAULT_TARGET),
    ] = None,
    form: Annotated[
        str, typer.Option("--format", help=f"What to write: {', '.join(FORMATS)}.")
    ] = "text",
    output: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write.", show_default="stdout")
    ] = None,
    check: Annotated[
        bool,
        typer.Option("--check", help="Also compare with the model after every pass; takes longer."),
    ] = False,
    measure: Annotated[bool, typer.Option(help="Measure each stage of a decode step.")] = True,
    notes: Annotated[
        bool, typer.Option("--notes", help="In the text: what each pass did, node by node.")
    ] = False,
    threads: Threads = None,
    json: Annotated[bool, typer.Option("--json", help="The same as --format json.")] = False,
    quiet: Quiet = False,
) -> None:
    """Show what each pass did to a model and why, what is left of it, and what each stage costs.

    A model that cannot be compiled is explained as far as the passes came; exit code 1.
    """
    from mmfree_compiler.artifact import check_writable

    if json and form not in ("text", "json"):
        raise InputError("--json", f"contradicts --format {form}", "Pass one of them")
    write = FORMATS.get("json" if json else form)
    if write is None:
        raise InputError(f"--format {form}", "is unknown", f"Known: {', '.join(FORMATS)}")
    if output is not None:
        check_writable(output)
    elif write is FORMATS["html"] and sys.stdout.isatty():
        raise InputError("--format html", "is a page for a browser", "Name a file: -o page.html")
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with progress(*columns, quiet=quiet) as bar:
        bar.add_task("explaining")
        found = _explained(model, target, check, measure, threads)
    # The error comes last, on stderr: not in a text on stdout too.
    said = write is FORMATS["text"] and output is None
    shown = found.model_copy(update={"failed": ""}) if said else found
    _write(write(shown, notes), output)
    if found.failed:
        print_error(found.failed)
        raise typer.Exit(FAILED)


def _explained(
    model: Path, target: list[str] | None, check: bool, measure: bool, threads: int | None
) -> Explanation:
    from mmfree_compiler import compiler
    from mmfree_compiler.artifact import read_artifact
    from mmfree_compiler.explaining import History, explain_artifact

    if model.suffix == SAVED:
        if target or check:
            option = "--target" if target else "--check"
            raise InputError(option, "is for models that are compiled now", "Name a checkpoint")
        return explain_artifact(read_artifact(model), History(), threads, measure)
    compared: Check = "passes" if check else "module"
    targets = parse_targets(target or DEFAULT_TARGET)
    return compiler.explain(model, targets, measure=measure, check=compared, threads=threads)


def _write(text: str, output: Path | None) -> None:
    """To a file, completely or not at all, or to stdout."""
    from mmfree_compiler.artifact import replacing
    from mmfree_compiler.artifact.archive import writable

    if output is None:
        print(text, end="", flush=True)
        return
    with writable(output), replacing(output) as file:
        file.write(text.encode())
