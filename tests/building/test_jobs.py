"""Which process makes a piece of a job."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from mmfree_compiler.building import jobs


@dataclass(frozen=True)
class Processes:
    """A job whose pieces are the numbers of the processes that made them."""

    def key(self, name: str) -> str:
        return name

    def compile(self, name: str) -> bytes:  # noqa: ARG002 - see Job
        return str(os.getpid()).encode()

    def apart(self, name: str) -> bool:
        return name.startswith("apart")

    def hint(self) -> str:
        return ""


@pytest.mark.parametrize("cpus", [1, 3])
def test_what_is_made_apart(cpus: int, monkeypatch: pytest.MonkeyPatch, cold: Path) -> None:
    """Even where this process would work alone, which then makes the others."""
    monkeypatch.setattr(jobs, "resolve_threads", lambda _: cpus)
    found = jobs.pieces(Processes(), ["apart 1", "here", "apart 2"])
    own = str(os.getpid()).encode()
    assert any(cold.iterdir())
    assert list(found) == ["apart 1", "here", "apart 2"]
    assert own not in (found["apart 1"], found["apart 2"])
