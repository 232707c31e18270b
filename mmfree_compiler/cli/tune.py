"""`mmfree tune`: the fastest settings of a model's kernels on this CPU."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

from mmfree_compiler.cli.options import CheckpointPath, Json, Threads
from mmfree_compiler.cli.output import emit, facts, grid, progress
from mmfree_compiler.wording import counted

if TYPE_CHECKING:
    from mmfree_compiler.tune import Report


def tune(
    checkpoint: CheckpointPath,
    threads: Threads = None,
    json: Json = False,
) -> None:
    """Try kernel settings for a checkpoint's shapes; later compilations here take the fastest."""
    from mmfree_compiler.tune import tune as search

    columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
    with progress(*columns, quiet=json) as bar:
        task = bar.add_task("compile", total=None)
        report = search(checkpoint, threads, lambda tried: bar.update(task, description=tried))
    trials = [(t.setting, str(t.value), f"{t.gain:.3f}") for t in report.trials]
    table = grid("Tried", ("setting", "value", "speed"), trials)
    emit(json, asdict(report), table, facts(_rows(report)))


def _rows(report: Report) -> list[tuple[str, str]]:
    best = ", ".join(f"{name} {value}" for name, value in asdict(report.tuning).items())
    return [
        ("processor", report.processor),
        ("variant", f"{report.variant}, {counted(report.threads, 'thread')}"),
        ("kept", best),
    ]
