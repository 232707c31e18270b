"""`mmfree compile`: a checkpoint becomes model.mmfree."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from mmfree_compiler.cli.measure import peak_rss
from mmfree_compiler.cli.options import CheckpointPath, Json
from mmfree_compiler.cli.output import emit, facts, progress, size
from mmfree_compiler.errors import InputError
from mmfree_compiler.target import Target

if TYPE_CHECKING:
    from mmfree_compiler.artifact import Manifest
    from mmfree_compiler.backends import Density

STAGES = ("load", "trace", "passes", "codegen", "save")


def compile_checkpoint(
    checkpoint: CheckpointPath,
    output: Annotated[Path, typer.Option("-o", "--output", help="The model.mmfree to write.")],
    target: Annotated[str, typer.Option(help="cpu, or cpu:VARIANT,... (see doctor).")] = "cpu",
    check: Annotated[
        bool, typer.Option("--check", help="Compare every pass's graph with the one before.")
    ] = False,
    density: Annotated[str, typer.Option(help="Bits a ternary weight: 1.6, 2, or auto.")] = "auto",
    json: Json = False,
) -> None:
    """Compile a checkpoint folder to one file that runs without torch and without a compiler."""
    from mmfree_compiler.artifact import check_writable

    goal, bits = Target.parse(target), _density(density)
    check_writable(output)  # better now than after a minute of work
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with progress(*columns, TimeElapsedColumn(), quiet=json) as bar:
        stages = _Stages(bar)
        manifest = _compile(checkpoint, output, goal, check, bits, stages)
    document = {
        "artifact": str(output),
        "target": str(goal),
        "variants": [variant.name for variant in manifest.variants],
        "checkpoint_bytes": sum(f.stat().st_size for f in checkpoint.glob("model*.safetensors")),
        "artifact_bytes": output.stat().st_size,
        "seconds": stages.seconds,
        "peak_rss_bytes": peak_rss(),
    }
    emit(json, document, facts(_rows(document)))


def _density(text: str) -> Density:
    if text == "auto":
        return "auto"
    try:
        return float(text)
    except ValueError:
        raise InputError(f"density {text!r}", "no number", "Known: auto, 1.6, 2") from None


def _compile(
    checkpoint: Path,
    output: Path,
    target: Target,
    check: bool,
    density: Density,
    stages: _Stages,
) -> Manifest:
    from mmfree_compiler import compiler, models

    compiler.check_savable(target)
    model = models.load_checkpoint(checkpoint)
    stages.enter("trace")
    compiled = compiler.compile(
        model, target, check=check, observers=(stages.observe,), density=density
    )
    stages.enter("save")
    compiled.save(output)
    stages.enter(None)
    return compiled.artifact.manifest


class _Stages:
    """Shows the stage at work on the progress display and measures the `seconds` of each."""

    def __init__(self, bar: Progress) -> None:
        self.seconds: dict[str, float] = {}
        self._bar, self._task = bar, bar.add_task(STAGES[0], total=len(STAGES))
        self._stage: str | None = STAGES[0]
        self._since = time.perf_counter()

    def enter(self, stage: str | None) -> None:
        """End the stage at work; `stage` begins."""
        now = time.perf_counter()
        if self._stage is not None:
            self.seconds[self._stage] = self.seconds.get(self._stage, 0.0) + now - self._since
        self._stage, self._since = stage, now
        self._bar.update(self._task, completed=len(self.seconds), description=stage or "done")

    def observe(self, name: str, subject: object, seconds: float) -> None:  # noqa: ARG002
        """A passes.Observer: code generation follows the last pass, which plans the memory."""
        self.enter("codegen" if name == "plan_memory" else "passes")


def _rows(document: dict[str, Any]) -> list[tuple[str, str]]:
    before, after = document["checkpoint_bytes"], document["artifact_bytes"]
    seconds = document["seconds"]
    stages = ", ".join(f"{stage} {seconds[stage]:.1f}" for stage in STAGES)
    return [
        ("artifact", document["artifact"]),
        ("target", document["target"]),
        ("variants", ", ".join(document["variants"])),
        ("size", f"{size(after)} from a checkpoint of {size(before)}"),
        ("seconds", f"{sum(seconds.values()):.1f} ({stages})"),
        ("peak memory", size(document["peak_rss_bytes"])),
    ]
