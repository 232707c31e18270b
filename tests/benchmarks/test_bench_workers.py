"""Workers, rounds and the table of peers."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import fake_worker
import pytest

from benchmarks import worker
from benchmarks.peers import OURS, Peer
from benchmarks.processes import Worker, WorkerError
from benchmarks.rounds import measure
from benchmarks.shapes import Shape
from benchmarks.tasks import TASKS
from benchmarks.worker import Job, seconds_per_step, serve

SHAPE = Shape("tiny", hidden=256, layers=2, intermediate=512, vocabulary=300)
FAKE = "tests.benchmarks.fake_worker"


def _started(option: str, folder: Path, threads: int | None = 1) -> Worker:
    return Worker(Job(option, SHAPE, folder, threads), folder / "log", FAKE)


def test_a_worker_answers_on_a_stdout_of_its_own(tmp_path: Path) -> None:
    with _started("works", tmp_path) as child:
        assert child.opened == {"weight_bytes": fake_worker.WEIGHT_BYTES}
        for task in ("decode-1", "prefill-128", "decode-1"):
            answer = child.ask(task)
            assert answer["seconds"] >= 0
            assert answer["peak_rss_bytes"] > 1 << 20
    assert "noise" in (tmp_path / "log").read_text()


def test_a_job_without_threads_prepares(tmp_path: Path) -> None:
    with _started("works", tmp_path, threads=None) as child:
        assert child.opened == {"shape": "tiny", "folder": str(tmp_path), "option": "works"}


def test_a_worker_that_cannot_open_says_why(tmp_path: Path) -> None:
    with pytest.raises(WorkerError, match=r"exit status 1: ValueError: no such model"):
        _started("cannot open", tmp_path)


def test_a_worker_that_dies_says_its_last_words(tmp_path: Path) -> None:
    with _started("dies", tmp_path) as child:
        child.ask("decode-8")
        with pytest.raises(WorkerError, match="exit status 3: out of luck"):
            child.ask("prefill-512")


def test_a_task_is_warmed_up_once(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    class Counting(fake_worker.FakeModel):
        def _decode(self, batch: int) -> Any:
            return lambda: calls.append(f"decode {batch}")

    requests = io.StringIO('{"task": "decode-8"}\n' * 2)
    monkeypatch.setattr(worker, "LEAST_SECONDS", 0)
    assert len(list(serve(Counting(dies=False), requests))) == 2
    assert calls == ["decode 8"] * 3


def test_a_sample_is_the_mean_of_steps_that_fill_its_time() -> None:
    times = iter([0.0, 0.1, 0.2, 0.4])
    assert seconds_per_step(lambda: None, lambda: next(times)) == pytest.approx(0.4 / 3)
    times = iter([0.0, 7.0])
    assert seconds_per_step(lambda: None, lambda: next(times)) == 7.0


class FakeAnswers:
    """Answers with its place in the log of all calls."""

    def __init__(self, name: str, log: list[str], fails_at: int = -1) -> None:
        self.name, self.log, self.fails_at = name, log, fails_at
        self.opened = {"weight_bytes": 10}
        self.asked = 0

    def ask(self, task: str) -> dict[str, Any]:
        self.asked += 1
        if self.asked == self.fails_at:
            raise WorkerError("ended")
        self.log.append(f"{self.name} {task}")
        return {"seconds": float(self.asked), "peak_rss_bytes": 100 + self.asked}


def test_rounds_interleave_and_go_on_without_who_fails() -> None:
    log: list[str] = []

    def ceilings() -> dict[str, float]:
        log.append("ceilings")
        return {"read": float(len(log))}

    workers = {
        OURS: FakeAnswers(OURS, log),
        "torch": FakeAnswers("torch", log, fails_at=2),
        "onnxruntime": FakeAnswers("onnxruntime", log),
    }
    group = measure(TASKS["decode-1"], workers, ceilings, repeat=3)
    names = [entry.partition(" ")[0] for entry in log]
    without = ["ceilings", OURS, "onnxruntime"]
    assert names == ["ceilings", OURS, "torch", "onnxruntime", *without, *without]
    assert group["skipped"] == {"torch": "ended"}
    assert set(group["figures"]) == {OURS, "onnxruntime"}
    figure = group["figures"][OURS]
    assert figure["seconds"] == {"median": 2.0, "low": 1.0, "high": 3.0}
    assert (figure["samples"], figure["peak_rss_bytes"]) == ([1.0, 2.0, 3.0], 103)
    assert group["ceilings"]["read"] == {"median": 5.0, "low": 1.0, "high": 8.0}


def test_a_peer_says_what_is_missing() -> None:
    absent = Peer("x", "X", "x", ("no-such-distribution", "numpy"), 2.0)
    assert absent.missing(SHAPE, 1 << 40) == "not installed: no-such-distribution"
    big = Peer("x", "X", "x", ("numpy",), 2.0)
    assert "MiB of memory, 0 are free" in big.missing(SHAPE, 1000)
    assert big.missing(SHAPE, 1 << 40) == ""
