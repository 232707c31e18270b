"""`mmfree tune`: finds the fastest settings of a model's kernels on this machine."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from mmfree_compiler.cli.options import CheckpointPath, Json, Progressless, Threads, only
from mmfree_compiler.cli.output import emit, progress
from mmfree_compiler.tables import facts, grid
from mmfree_compiler.target import DEFAULT_TARGET

if TYPE_CHECKING:
    from mmfree_compiler.tune import Report


def tune(
    checkpoint: CheckpointPath,
    target: Annotated[
        list[str] | None,
        typer.Option(help="Kind of target to tune for.", show_default=DEFAULT_TARGET),
    ] = None,
    threads: Threads = None,
    quiet: Progressless = False,
    json: Json = False,
) -> None:
    """Find the fastest kernel settings for a checkpoint on this machine; compile then uses them."""
    from mmfree_compiler.tune import tune as search

    kind = only(target) or DEFAULT_TARGET
    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with progress(*columns, quiet=quiet or json) as bar:
        task = bar.add_task("compile", total=None)
        report = search(
            checkpoint, kind, threads, lambda tried: bar.update(task, description=tried)
        )
    trials = [(t.setting, str(t.value), f"{t.gain:.3f}") for t in report.trials]
    table = grid("Tried", ("setting", "value", "speed"), trials)
    emit(json, asdict(report), table, facts(_rows(report)))


def _rows(report: Report) -> list[tuple[str, str]]:
    best = ", ".join(f"{name} {value}" for name, value in report.settings.items())
    return [("target", report.target), ("build", report.build), ("kept", best)]
