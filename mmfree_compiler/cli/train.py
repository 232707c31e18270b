"""`mmfree train`: trains a byte-level MatMul-free language model on text."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from mmfree_compiler.cli.options import Json, Quiet, Threads
from mmfree_compiler.cli.output import emit, progress, say
from mmfree_compiler.errors import CheckpointError, InputError
from mmfree_compiler.tables import facts

if TYPE_CHECKING:
    from mmfree_compiler.models.corpus import Corpus
    from mmfree_compiler.models.train_config import TrainConfig
    from mmfree_compiler.models.training import Step

PYTHON = "python"
# The learning rate follows a schedule over all steps, so that they cannot become more later.
LONGER = "begin in another folder, with more --steps"


def train(
    corpus: Annotated[
        list[str],
        typer.Argument(
            metavar="CORPUS",
            help="Text files or folders, or the word python for Python's own documentation.",
        ),
    ],
    output: Annotated[Path, typer.Option("-o", "--output", help="Checkpoint folder to write.")],
    # Defaults are copies of TrainConfig's: importing it here would import torch in every command.
    hidden_size: Annotated[int, typer.Option(help="Width of the model.")] = 256,
    layers: Annotated[int, typer.Option(help="Number of layers.")] = 4,
    steps: Annotated[int, typer.Option(help="Number of optimizer steps.")] = 5000,
    batch: Annotated[int, typer.Option(help="Sequences per step.")] = 8,
    length: Annotated[int, typer.Option(help="Bytes per sequence.")] = 256,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", "--lr", help="Peak learning rate.")
    ] = 3e-3,
    seed: Annotated[int, typer.Option(help="Random seed; equal seeds give equal models.")] = 0,
    bfloat16: Annotated[
        bool,
        typer.Option(
            "--bfloat16", help="Multiply matrices in bfloat16, faster on CPUs that have it."
        ),
    ] = False,
    threads: Threads = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Continue the training run in the output folder.")
    ] = False,
    quiet: Quiet = False,
    json: Json = False,
) -> None:
    """Train a byte-level MatMul-free language model; --resume continues a run after Ctrl-C."""
    import torch

    from mmfree_compiler.models import training
    from mmfree_compiler.models.train_config import TrainConfig
    from mmfree_compiler.threads import resolve_threads

    torch.set_num_threads(resolve_threads(threads))
    config = TrainConfig(
        hidden_size=hidden_size,
        layers=layers,
        steps=steps,
        batch=batch,
        length=length,
        learning_rate=learning_rate,
        seed=seed,
        precision="bfloat16" if bfloat16 else "float32",
    )
    _check_resume(output / training.RESUME_FILE, resume)
    text = _read(corpus)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with progress(*columns, TimeRemainingColumn(), quiet=quiet or json) as bar:
        monitor = _Monitor(bar, config)
        try:
            training.train(config, text, output, monitor, monitor.saved)
        except KeyboardInterrupt:
            say(monitor.stopped())
            raise
    if monitor.idle and not quiet:
        say(f"{output} is complete after {steps:,} steps; to train longer, {LONGER}")
    emit(json, monitor.summary(output), facts(monitor.rows(output)), quiet=quiet)


def _check_resume(run: Path, resume: bool) -> None:
    """Refuse to continue or to start a run by accident."""
    exists = os.path.exists(run)  # False for a name that is too long; Path.exists raises
    if exists and not resume:
        hint = "Pass --resume to continue it, or choose another folder"
        raise CheckpointError(str(run), "is a training run that was saved before", hint)
    if resume and not exists:
        cause = "does not exist, so there is no training run to resume"
        raise CheckpointError(str(run), cause, "Leave --resume out to start one")


def _read(names: list[str]) -> Corpus:
    from mmfree_compiler.models.corpus import Corpus, python_corpus

    if names == [PYTHON]:
        return Corpus.of(python_corpus())
    if PYTHON in names:
        hint = f"Write ./{PYTHON} if you mean a file of that name"
        raise InputError("corpus", f"{PYTHON!r} cannot be combined with other text", hint)
    return Corpus.read([Path(name) for name in names])


class _Monitor:
    """Shows each step on the progress display, and keeps the figures of the summary."""

    def __init__(self, bar: Progress, config: TrainConfig) -> None:
        self._bar, self._tokens_per_step = bar, config.batch * config.length
        self._task = bar.add_task("train", total=config.steps)
        self._started, self._first = time.perf_counter(), 0
        self._last: Step | None = None
        self._held_out: float | None = None
        self._saved: int | None = None

    def __call__(self, step: Step) -> None:
        if self._last is None:
            self._first = step.step - 1  # where a resumed run continued
        self._last = step
        self._held_out = step.held_out or self._held_out
        self._bar.update(self._task, completed=step.step, description=self._line(step))

    @property
    def idle(self) -> bool:
        """Whether no step was done, as nothing is left to do in a complete run."""
        return self._last is None

    def saved(self, step: int) -> None:
        """Called with the number of steps done, after they were saved."""
        self._saved = step

    def stopped(self) -> str:
        """What an interrupted run has left."""
        if self._saved is None:
            return "stopped before the first step; nothing to save"
        return f"saved at step {self._saved}, --resume continues"

    def _speed(self) -> float | None:
        if self._last is None:
            return None
        done = self._last.step - self._first
        return done * self._tokens_per_step / (time.perf_counter() - self._started)

    def _line(self, step: Step) -> str:
        held_out = f"{self._held_out:.3f}" if self._held_out else "?"
        return (
            f"loss {step.loss:.3f}  rate {step.learning_rate:.1e}  {self._speed():,.0f} tokens/s  "
            f"held out {held_out} bits/byte"
        )

    def summary(self, output: Path) -> dict[str, Any]:
        """Facts for JSON; all but the checkpoint are None when the run was complete already."""
        return {
            "checkpoint": str(output),
            "steps": self._last.step if self._last else None,
            "loss": self._last.loss if self._last else None,
            "held_out_bits_per_byte": self._held_out,
            "tokens_per_second": self._speed(),
        }

    def rows(self, output: Path) -> list[tuple[str, str]]:
        return [
            (name.replace("_", " "), f"{value:,.4g}" if isinstance(value, float) else str(value))
            for name, value in self.summary(output).items()
            if value is not None
        ]
