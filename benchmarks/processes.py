"""The parent's side of benchmarks/worker.py."""

from __future__ import annotations

import json
import select
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, Protocol, Self

GRACE_SECONDS = 5.0
ROOT = Path(__file__).resolve().parents[1]
TAIL = 300  # characters of a failed worker's errors


class WorkerError(Exception):
    """A worker ended or hung; the message is the end of what it printed."""


class Job(Protocol):
    """What a worker is started for: its argument."""

    @property
    def text(self) -> str: ...


@dataclass(frozen=True)
class Limits:
    """Seconds after which a worker that is silent hangs: until it is open, until it answers."""

    opening: float = 600.0
    answer: float = 600.0


class Worker:
    """A running child process; `opened` is its first answer, once its model is open.

    It runs the worker of the tree `root`, with that tree's compiler.

    A context manager: leaving it ends the child. Raises WorkerError when the child fails.
    """

    def __init__(
        self,
        job: Job,
        log: Path,
        module: str = "benchmarks.worker",
        root: Path = ROOT,
        limits: Limits = Limits(),
    ) -> None:
        self._log, self._limits = log, limits
        with log.open("w") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", module, job.text],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=root,
            )
        self.opened = self._answer(limits.opening)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the child."""
        self._process.kill()
        self._process.communicate()

    def ask(self, task: str) -> dict[str, Any]:
        """Measure a task, by name."""
        try:
            print(json.dumps({"task": task}), file=_pipe(self._process.stdin), flush=True)
        except BrokenPipeError:
            raise self._failed("ended") from None
        return self._answer(self._limits.answer)

    def _answer(self, seconds: float) -> dict[str, Any]:
        answers = _pipe(self._process.stdout)
        ready, _, _ = select.select([answers], [], [], seconds)
        if not ready:
            raise self._failed(f"was silent for {seconds:.0f} s")
        line = answers.readline()
        if not line:
            raise self._failed("ended")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def _failed(self, what: str) -> WorkerError:
        with suppress(subprocess.TimeoutExpired):  # its pipes close a moment before it ends
            self._process.wait(GRACE_SECONDS)
        self._process.kill()
        self._process.communicate()
        lines = self._log.read_text(errors="replace").strip().splitlines()
        said = f": {lines[-1][-TAIL:]}" if lines else ""
        return WorkerError(f"{what} with exit status {self._process.returncode}{said}")


def _pipe(pipe: IO[str] | None) -> IO[str]:
    assert pipe is not None  # Popen was called with PIPE
    return pipe


def prepare(job: Job, log: Path) -> dict[str, Any]:
    """Prepare a peer's files in a child process. Raises WorkerError."""
    with Worker(job, log) as worker:
        return worker.opened
