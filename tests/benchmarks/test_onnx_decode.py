"""The benchmark of exact ONNX models beside their products."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import worker
from benchmarks.onnx_decode import report
from benchmarks.peers import EXACT, mmfree
from benchmarks.shapes import Shape
from benchmarks.worker import Job

SHAPE = Shape("tiny", hidden=256, layers=2, intermediate=512, vocabulary=300)


def test_ratios_are_of_the_same_round() -> None:
    """The machine became slower by two, and both with it."""
    samples = {"onnx": [0.2, 0.2, 0.4], "onnxruntime": [0.1, 0.1, 0.2]}
    _, _, ours, products = report(samples).splitlines()
    assert ours == "| mmfree onnx | 5 | 0.50 |"
    assert products == "| ONNX Runtime 2-bit | 10 | 1.00 |"


@pytest.mark.parametrize("name", EXACT)
def test_a_worker_runs_a_target(
    name: str, tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each target has a file of its own."""
    pytest.importorskip("onnxruntime")
    (tmp_path / SHAPE.name).symlink_to(tiny_checkpoint)
    answers: list[dict[str, float]] = []
    monkeypatch.setattr(worker, "own_stdout", lambda: None)
    monkeypatch.setattr(worker, "say", lambda _, answer: answers.append(answer))
    monkeypatch.setattr("sys.stdin", ['{"task": "decode-1"}'])
    worker.main(Job(name, SHAPE, tmp_path, None))
    worker.main(Job(name, SHAPE, tmp_path, 1))
    assert answers[1]["weight_bytes"] > 0
    assert answers[2]["seconds"] > 0
    model = mmfree.open_model(SHAPE, tmp_path, name, 1)
    assert model.session.launcher.artifact.entry.target.startswith("onnx")
