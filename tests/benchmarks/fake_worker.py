"""`python -m benchmarks.worker` with a peer that answers at once, as a child process for tests.

Its option is what it does: "works", "cannot open", "dies" at its first prefill.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from benchmarks import worker
from benchmarks.peers import PEERS, Model, Module, Peer, Step
from benchmarks.shapes import Shape

WEIGHT_BYTES = 1234


class FakeModel:
    """Steps that do nothing, or end the process."""

    weight_bytes = WEIGHT_BYTES

    def __init__(self, dies: bool) -> None:
        self.dies = dies

    @property
    def steps(self) -> dict[str, Callable[[int], Step]]:
        return {"decode": self._decode, "prefill": self._prefill}

    def _decode(self, batch: int) -> Step:
        return lambda: print("noise", batch)

    def _prefill(self, length: int) -> Step:  # noqa: ARG002
        def step() -> None:
            if self.dies:
                print("out of luck", file=sys.stderr, flush=True)
                os._exit(3)

        return step


def prepare(shape: Shape, folder: Path, option: str) -> dict[str, Any]:
    return {"shape": shape.name, "folder": str(folder), "option": option}


def open_model(shape: Shape, folder: Path, option: str, threads: int) -> Model:  # noqa: ARG001
    print("noise that is not an answer")
    if option == "cannot open":
        raise ValueError("no such model")
    return FakeModel(option == "dies")


@dataclass(frozen=True)
class FakePeer(Peer):
    """A peer whose module is this one."""

    def load(self) -> Module:
        return cast(Module, SimpleNamespace(prepare=prepare, open_model=open_model))


if __name__ == "__main__":
    job = worker.Job.parse(sys.argv[1])
    PEERS[job.peer] = FakePeer(job.peer, "a fake", "", (), 0, option=job.peer)
    worker.LEAST_SECONDS = 0
    worker.main(job)
