"""`python -m benchmarks.gpu.worker` with peers that answer at once, as a child process for tests.

"eager" cannot open a model, "graph" ends when it is measured, "cpu" cannot write its files.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, cast

from benchmarks.gpu import worker
from benchmarks.gpu.peers import PEERS, GpuJob, GpuPeer, Module, Opened


def prepare(job: GpuJob) -> dict[str, Any]:
    if job.peer == "cpu":
        raise ValueError("no compiler")
    return {"folder": str(job.folder), "compiled": str(job.compiled)}


def open_model(job: GpuJob) -> Opened:
    assert job.task is not None
    if job.peer == "eager":
        raise ValueError("no such model")
    samples = iter([1.0, 2.0, 3.0, 4.0])

    def sample() -> float:
        if job.peer == "graph":
            print("out of luck", file=sys.stderr, flush=True)
            os._exit(3)
        return next(samples)

    return Opened(sample, {"weight_bytes": job.task.size})


@dataclass(frozen=True)
class FakePeer(GpuPeer):
    """A peer whose module is this one."""

    def load(self) -> Module:
        return cast(Module, SimpleNamespace(prepare=prepare, open_model=open_model))


if __name__ == "__main__":
    found = GpuJob.parse(sys.argv[1])
    PEERS[found.peer] = FakePeer(found.peer, "a fake", "", (), frozenset())
    worker.main(found)
