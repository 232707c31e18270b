"""A child process that runs one peer: `python -m benchmarks.worker '{"peer": ..., ...}'`.

It prints `{"weight_bytes": ...}` once its model is open, then answers every line `{"task": NAME}`
of its input with a line `{"seconds": ..., "peak_rss_bytes": ...}`, until its input ends. A job
without "threads" prepares the peer's files, prints what that returned, and ends.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self, TextIO

from benchmarks.peers import PEERS, Model, Step
from benchmarks.shapes import Shape
from benchmarks.tasks import TASKS
from mmfree_compiler.cli.measure import peak_rss

LEAST_SECONDS = 0.3  # a sample repeats its step for at least this long


@dataclass(frozen=True)
class Job:
    """What a worker is started for."""

    peer: str
    shape: Shape
    folder: Path
    threads: int | None  # None: prepare only

    @classmethod
    def parse(cls, text: str) -> Self:
        """The inverse of `text`."""
        keys = json.loads(text)
        shape, folder = Shape(**keys["shape"]), Path(keys["folder"])
        return cls(keys["peer"], shape, folder, keys["threads"])

    @property
    def text(self) -> str:
        return json.dumps(asdict(self) | {"folder": str(self.folder)})


def main(job: Job) -> None:
    """Prepare, or open and serve."""
    answers = own_stdout()
    peer = PEERS[job.peer]
    module = peer.load()
    if job.threads is None:
        say(answers, module.prepare(job.shape, job.folder, peer.option))
        return
    model = module.open_model(job.shape, job.folder, peer.option, job.threads)
    say(answers, {"weight_bytes": model.weight_bytes})
    for answer in serve(model, sys.stdin):
        say(answers, answer)


def own_stdout() -> TextIO:
    """A file for the answers alone; what libraries print goes to stderr."""
    kept = os.fdopen(os.dup(sys.stdout.fileno()), "w")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return kept


def say(answers: TextIO, document: dict[str, Any]) -> None:
    """Write one answer."""
    print(json.dumps(document), file=answers, flush=True)


def serve(model: Model, requests: TextIO) -> Iterator[dict[str, Any]]:
    """An answer for each request. Before a task is first measured, its step runs once."""
    warm: set[str] = set()
    for line in requests:
        task = TASKS[json.loads(line)["task"]]
        step = model.steps[task.kind](task.size)
        if task.name not in warm:
            step()
            warm.add(task.name)
        yield {"seconds": seconds_per_step(step), "peak_rss_bytes": peak_rss()}


def seconds_per_step(step: Step, clock: Callable[[], float] = time.perf_counter) -> float:
    """The mean over as many steps as fill LEAST_SECONDS, at least one."""
    started, count = clock(), 0
    while True:
        step()
        count += 1
        elapsed = clock() - started
        if elapsed >= LEAST_SECONDS:
            return elapsed / count


if __name__ == "__main__":
    main(Job.parse(sys.argv[1]))
