"""The benchmark of exact ONNX models beside their products."""

from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest

from benchmarks import onnx_decode
from benchmarks.onnx_decode import MODELS, PRODUCTS, measured, report
from benchmarks.peers import Peer
from benchmarks.shapes import Shape

SHAPE = Shape("tiny", hidden=256, layers=2, intermediate=512, vocabulary=300)


def test_ratios_are_of_the_same_round() -> None:
    """The machine became slower by two, and both with it."""
    samples = {"onnx": [0.2, 0.2, 0.4], "onnxruntime": [0.1, 0.1, 0.2]}
    _, _, ours, products = report(samples).splitlines()
    assert ours == "| mmfree onnx | 5 | 0.50 |"
    assert products == "| ONNX Runtime 2-bit | 10 | 1.00 |"


def test_models_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    monkeypatch.setattr(onnx_decode, "seconds_per_step", lambda step, _: step() or 1.0)
    samples = measured({name: partial(order.append, name) for name in "ab"}, 2)
    assert order == ["a", "b", "a", "b"]
    assert samples == {"a": [1.0, 1.0], "b": [1.0, 1.0]}


@pytest.mark.parametrize("model", MODELS, ids=lambda model: model.name)
def test_each_model_makes_a_step(model: Peer, tiny_checkpoint: Path, tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    (tmp_path / SHAPE.name).symlink_to(tiny_checkpoint)
    assert onnx_decode._step(model, SHAPE, tmp_path)() is None or model is PRODUCTS
