"""This project: an artifact of random weights, run as users run it, by `Session.generate`.

Decoding is greedy, with the head and sampling; its time is that from token to token.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.gpu import models
from benchmarks.gpu.memory import device_bytes
from benchmarks.gpu.peers import PEERS, GpuJob, Opened
from benchmarks.gpu.sampling import Sampler
from mmfree_compiler.runtime import load

BATCH_STEPS = 128  # of a sample of several sequences
ENDLESS = 1 << 30  # tokens

Sample = Callable[[], float]


def prepare(job: GpuJob) -> dict[str, Any]:
    """Compile, and draw the weights."""
    kind = PEERS[job.peer].option
    return {"seconds": models.prepare(job.shape, kind, job.folder, job.compiled)}


def open_model(job: GpuJob) -> Opened:
    """Load the artifact that `prepare` wrote."""
    assert job.task is not None
    kind = PEERS[job.peer].option
    path = models.artifact_path(job.shape, kind, job.folder)
    measured = device_bytes(path) if (job.task.kind, kind) == ("load", "cuda") else {}
    model = Loaded(path)
    facts = {"weight_bytes": model.session.launcher.weight_bytes, **measured}
    return Opened(model.samples[job.task.kind](job.task.size), facts)


class Loaded:
    """A session of a file, and what is measured of it: `samples`, by the kind of task."""

    def __init__(self, path: Path) -> None:
        self.path, self.session = path, load(path)
        self.samples: dict[str, Callable[[int], Sample]] = {
            "decode": lambda batch: self._one() if batch == 1 else self._several(batch),
            "prefill": self._prefill,
            "load": self._load,
        }

    def _one(self) -> Sample:
        tokens = self.session.generate([1], max_new_tokens=ENDLESS, temperature=0, stop_tokens=())
        return Sampler(_repeated(lambda: next(tokens)))

    def _several(self, batch: int) -> Sample:
        """The time of a generation less that of a shorter one, which is that of the prompts."""
        prompts = [[1 + n] for n in range(batch)]

        def seconds(new: int) -> float:
            started = time.perf_counter()
            self.session.generate_batch(prompts, max_new_tokens=new, temperature=0, stop_tokens=())
            return time.perf_counter() - started

        return lambda: (seconds(2 + BATCH_STEPS) - seconds(2)) / BATCH_STEPS

    def _prefill(self, length: int) -> Sample:
        count = self.session.language_model.vocab_size
        ids = np.random.default_rng(0).integers(count, size=length)
        return Sampler(
            _repeated(lambda: next(self.session.generate(ids, max_new_tokens=1, temperature=0)))
        )

    def _load(self, _: int) -> Sample:
        """This session is open meanwhile, so that the driver's own start is not measured."""
        return Sampler(_repeated(lambda: load(self.path).close()))


def _repeated(call: Callable[[], object]) -> Callable[[int], None]:
    def run(count: int) -> None:
        for _ in range(count):
            call()

    return run
