"""`mmfree train`: a byte-level MatMul-free LM from text."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mmfree_compiler.cli.options import Json, Threads
from mmfree_compiler.cli.output import emit, facts, progress
from mmfree_compiler.errors import CheckpointError, InputError

if TYPE_CHECKING:
    from mmfree_compiler.models.corpus import Corpus
    from mmfree_compiler.models.training import Step, TrainConfig

PYTHON = "python"


def train(
    corpus: Annotated[
        list[str],
        typer.Argument(help="Files or folders of text; python: what every Python carries."),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="The checkpoint folder to write.")],
    hidden_size: Annotated[int | None, typer.Option(help="Width of the model.")] = None,
    layers: Annotated[int | None, typer.Option(help="Layers of the model.")] = None,
    steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    batch: Annotated[int | None, typer.Option(help="Sequences a step.")] = None,
    length: Annotated[int | None, typer.Option(help="Bytes a sequence.")] = None,
    learning_rate: Annotated[
        float | None, typer.Option("--learning-rate", "--lr", help="After warming up, the largest.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Same seed, same model.")] = None,
    bfloat16: Annotated[
        bool, typer.Option("--bfloat16", help="Matrix products in bfloat16: faster on new CPUs.")
    ] = False,
    threads: Threads = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the run that the folder holds.")
    ] = False,
    json: Json = False,
) -> None:
    """Train a byte-level MatMul-free language model; Ctrl-C saves, --resume continues."""
    import torch

    from mmfree_compiler.models import training
    from mmfree_compiler.runtime.threads import resolve_threads

    torch.set_num_threads(resolve_threads(threads))
    given: dict[str, Any] = {
        "hidden_size": hidden_size,
        "layers": layers,
        "steps": steps,
        "batch": batch,
        "length": length,
        "learning_rate": learning_rate,
        "seed": seed,
        "precision": "bfloat16" if bfloat16 else None,
    }
    settings = training.TrainConfig(**{name: x for name, x in given.items() if x is not None})
    _check_resume(output / training.RESUME_FILE, resume)
    text = _read(corpus)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with progress(*columns, TimeRemainingColumn(), quiet=json) as bar:
        watch = _Watch(bar, settings)
        training.train(settings, text, output, watch)
    emit(json, watch.summary(output), facts(watch.rows(output)))


def _check_resume(run: Path, resume: bool) -> None:
    """A run is neither continued nor begun by accident."""
    if run.exists() and not resume:
        hint = "Pass --resume to continue it, or choose another folder"
        raise CheckpointError(str(run), "holds a training run", hint)
    if resume and not run.exists():
        raise CheckpointError(str(run), "no training run to resume", "Leave --resume out")


def _read(names: list[str]) -> Corpus:
    from mmfree_compiler.models.corpus import Corpus, python_corpus

    if names == [PYTHON]:
        return Corpus.of(python_corpus())
    if PYTHON in names:
        hint = f"Write ./{PYTHON} if you mean a file"
        raise InputError("corpus", f"{PYTHON!r} beside other text", hint)
    return Corpus.read([Path(name) for name in names])


class _Watch:
    """Shows each step on the progress display, and remembers what the summary tells."""

    def __init__(self, bar: Progress, settings: TrainConfig) -> None:
        self._bar, self._tokens = bar, settings.batch * settings.length
        self._task = bar.add_task("train", total=settings.steps)
        self._started, self._first = time.perf_counter(), 0
        self._last: Step | None = None
        self._held_out: float | None = None

    def __call__(self, step: Step) -> None:
        if self._last is None:
            self._first = step.step - 1  # where a resumed run began
        self._last = step
        self._held_out = step.held_out or self._held_out
        self._bar.update(self._task, completed=step.step, description=self._line(step))

    def _speed(self) -> float:
        done = (self._last.step if self._last else 0) - self._first
        return done * self._tokens / (time.perf_counter() - self._started)

    def _line(self, step: Step) -> str:
        held_out = f"{self._held_out:.3f}" if self._held_out else "?"
        return (
            f"loss {step.loss:.3f}  rate {step.learning_rate:.1e}  {self._speed():,.0f} tokens/s  "
            f"held out {held_out} bits/byte"
        )

    def summary(self, output: Path) -> dict[str, Any]:
        """Facts for JSON; losses are None when there was no step left to take."""
        return {
            "checkpoint": str(output),
            "steps": self._last.step if self._last else None,
            "loss": self._last.loss if self._last else None,
            "held_out_bits_per_byte": self._held_out,
            "tokens_per_second": self._speed(),
        }

    def rows(self, output: Path) -> list[tuple[str, str]]:
        return [
            (name.replace("_", " "), str(value)) for name, value in self.summary(output).items()
        ]
