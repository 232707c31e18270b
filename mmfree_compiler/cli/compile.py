"""`mmfree compile`: compiles a checkpoint to one file, model.mmfree."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mmfree_compiler.cli.measure import peak_rss
from mmfree_compiler.cli.options import CheckpointPath, Json, Quiet
from mmfree_compiler.cli.output import emit, progress
from mmfree_compiler.errors import InputError
from mmfree_compiler.tables import facts, size
from mmfree_compiler.target import DEFAULT_TARGET, Target, parse_targets

if TYPE_CHECKING:
    from mmfree_compiler.artifact import Manifest
    from mmfree_compiler.checking import Check

STAGES = ("load", "trace", "passes", "check", "codegen", "save")
# What a passes.Observer is called with -> the stage that begins; all else are passes.
_BEGIN = {"check": "check", "trace": "trace", "emit": "codegen"}


def compile_checkpoint(
    checkpoint: CheckpointPath,
    output: Annotated[
        Path,
        typer.Option(
            "-o",
            "--output",
            help="File to write, such as model.mmfree, or model.onnx for target onnx.",
        ),
    ],
    target: Annotated[
        list[str],
        typer.Option(
            help="Target to compile for: KIND or KIND:OPTION,...; `mmfree doctor` lists them. "
            "May be repeated, in order of preference."
        ),
    ] = [DEFAULT_TARGET],  # noqa: B006 - typer copies it
    check: Annotated[
        str,
        typer.Option(
            help="Compare with the checkpoint: module (at the end), passes (after every pass) "
            "or none."
        ),
    ] = "module",
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Compile a checkpoint to one file that runs without torch and without a compiler."""
    from mmfree_compiler.artifact import check_writable

    targets, checked = parse_targets(target), _check(check)
    check_writable(output)  # fail now, not after a minute of work
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with progress(*columns, TimeElapsedColumn(), quiet=quiet or json) as bar:
        stages = _Stages(bar)
        manifest = _compile(checkpoint, output, targets, checked, stages)
    document = {
        "artifact": str(output),
        "targets": {
            entry.target: [build.name for build in entry.builds] for entry in manifest.targets
        },
        "checkpoint_bytes": _size(checkpoint),
        "artifact_bytes": output.stat().st_size,
        "seconds": stages.seconds,
        "peak_rss_bytes": peak_rss(),
    }
    emit(json, document, facts(_rows(document)), quiet=quiet)


def _size(checkpoint: Path) -> int:
    """Bytes of the weights."""
    weights = [checkpoint] if checkpoint.is_file() else checkpoint.glob("model*.safetensors")
    return sum(file.stat().st_size for file in weights)


def _check(text: str) -> Check:
    known: dict[str, Check] = {"module": "module", "passes": "passes", "none": False}
    if text not in known:
        raise InputError(f"check {text!r}", "is unknown", f"Known: {', '.join(known)}")
    return known[text]


def _compile(
    checkpoint: Path,
    output: Path,
    targets: tuple[Target, ...],
    check: Check,
    stages: _Stages,
) -> Manifest:
    from mmfree_compiler import compiler, models
    from mmfree_compiler.backends import files

    files.check_savable(targets, output)
    model = checkpoint if checkpoint.is_file() else models.load_checkpoint(checkpoint)
    compiled = compiler.compile(model, targets, check=check, observers=(stages.observe,))
    stages.enter("save")
    compiled.save(output)
    stages.enter(None)
    return compiled.artifact.manifest


class _Stages:
    """Shows the current stage on the progress display, and measures the `seconds` of each stage."""

    def __init__(self, bar: Progress) -> None:
        self.seconds: dict[str, float] = {}
        self._bar, self._task = bar, bar.add_task(STAGES[0], total=len(STAGES))
        self._stage: str | None = STAGES[0]
        self._since = time.perf_counter()

    def enter(self, stage: str | None) -> None:
        """End the current stage, and begin `stage`."""
        now = time.perf_counter()
        if self._stage is not None:
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._since
        self._stage, self._since = stage, now
        self._bar.update(self._task, completed=len(self.seconds), description=stage or "done")

    def observe(self, name: str, subject: object, seconds: float) -> None:  # noqa: ARG002
        """A passes.Observer."""
        self.enter(_BEGIN.get(name, "passes"))


def _rows(document: dict[str, Any]) -> list[tuple[str, str]]:
    before, after = document["checkpoint_bytes"], document["artifact_bytes"]
    seconds = document["seconds"]
    stages = ", ".join(f"{stage} {seconds.get(stage, 0):.1f}" for stage in STAGES)
    return [
        ("artifact", document["artifact"]),
        *((f"target {name}", ", ".join(builds)) for name, builds in document["targets"].items()),
        ("size", f"{size(after)} from a checkpoint of {size(before)}"),
        ("seconds", f"{sum(seconds.values()):.1f} ({stages})"),
        ("peak memory", size(document["peak_rss_bytes"])),
    ]
