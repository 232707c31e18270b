"""What the peers run: shapes, and the models that are made for them."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from benchmarks.peers import OURS, PEERS, ort
from benchmarks.peers.torch_model import Ternary
from benchmarks.shapes import Shape
from mmfree_compiler.errors import CheckpointError
from mmfree_compiler.models import BitLinear
from mmfree_compiler.models.checkpoint import expected_shapes
from mmfree_compiler.models.config import SHAPES
from mmfree_compiler.models.modules import quantize_weight

TINY = Shape("tiny", hidden=256, layers=2, intermediate=512, vocabulary=300)


@pytest.mark.parametrize("name", SHAPES)
def test_shapes_count_the_checkpoint_s_weights(name: str) -> None:
    stored = expected_shapes(SHAPES[name])
    shape = Shape.of(name)
    assert shape.parameters == sum(math.prod(size) for size in stored.values())
    linears = (size for key, size in stored.items() if key.endswith("_proj.weight"))
    assert shape.body_weights == sum(math.prod(size) for size in linears)


def test_an_unknown_shape_is_refused() -> None:
    with pytest.raises(CheckpointError, match="unknown"):
        Shape.of("13B")


def test_torch_s_prequantized_layer_is_the_model_s() -> None:
    linear, x = BitLinear(64, 32), torch.randn(3, 64)
    with torch.no_grad():
        expected = linear(x)
        linear.weight.copy_(quantize_weight(linear.weight))
        torch.testing.assert_close(Ternary(linear)(x), expected)


def test_onnx_weights_are_ternary() -> None:
    digits = ort.TERNARY_BYTES[:, None] >> np.array([0, 2, 4, 6]) & 3
    assert len({tuple(row) for row in digits.tolist()}) == 3**4
    assert set((digits.astype(int) - 2).ravel().tolist()) == {-1, 0, 1}


def test_onnx_runtime_runs_the_shape(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    ort.prepare(TINY, tmp_path, "")
    model = ort.open_model(TINY, tmp_path, "", threads=1)
    (eight,) = model.steps["decode"](8)()
    (last,) = model.steps["prefill"](16)()
    assert (eight.shape, last.shape) == ((8, TINY.vocabulary), (1, TINY.vocabulary))
    assert np.isfinite(eight).all()
    assert np.abs(last).max() > 0


@pytest.mark.parametrize("kind", ["TQ1_0", "TQ2_0"])
def test_gguf_has_the_shape_s_ternary_matrices(kind: str, tmp_path: Path) -> None:
    gguf = pytest.importorskip("gguf")
    from benchmarks.peers.gguf_file import write_random

    path = tmp_path / "tiny.gguf"
    write_random(path, TINY, kind)
    tensors = gguf.GGUFReader(path).tensors
    ternary = [t for t in tensors if t.tensor_type == gguf.GGMLQuantizationType[kind]]
    weights = sum(int(tensor.n_elements) for tensor in ternary)
    assert weights == TINY.body_weights + TINY.head_weights
    codes = gguf.quants.dequantize(ternary[-1].data, ternary[-1].tensor_type)
    assert set(np.sign(codes).ravel().tolist()) == {-1, 0, 1}


def test_gguf_refuses_widths_that_are_not_whole_blocks(tmp_path: Path) -> None:
    pytest.importorskip("gguf")
    from benchmarks.peers.gguf_file import write_random

    narrow = Shape("narrow", hidden=128, layers=1, intermediate=256, vocabulary=300)
    with pytest.raises(ValueError, match="not multiples of 256"):
        write_random(tmp_path / "narrow.gguf", narrow, "TQ2_0")
    assert list(tmp_path.iterdir()) == []


def test_llama_cpp_runs_the_shape(tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    pytest.importorskip("gguf")
    llama = PEERS["llama-tq2_0"].load()
    llama.prepare(TINY, tmp_path, "TQ2_0")
    model = llama.open_model(TINY, tmp_path, "TQ2_0", 1)
    for kind, size in (("decode", 1), ("decode", 8), ("prefill", 128), ("prefill", 512)):
        step = model.steps[kind](size)
        step()
        step()


def test_ours_runs_every_kind_of_task(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from benchmarks.peers import mmfree

    monkeypatch.setattr(mmfree, "_artifact", lambda *_: tiny_artifact)
    model = mmfree.open_model(TINY, tmp_path, "", 1)
    assert 0 < model.weight_bytes < tiny_artifact.stat().st_size
    for kind in PEERS[OURS].kinds:
        step = model.steps[kind](2)
        step()
        step()
