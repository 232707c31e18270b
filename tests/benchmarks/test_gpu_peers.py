"""What the peers of the GPU benchmark compute, on tensors of a CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from triton_process import interpreted

from benchmarks.gpu import models, ours, products, sampling
from benchmarks.gpu.recurrence import recurrence
from benchmarks.gpu.torch_lm import SCALE, TorchLM
from benchmarks.gpu.torch_peer import call_shape
from benchmarks.shapes import Shape
from benchmarks.tasks import Task
from mmfree_compiler.artifact import read_artifact
from mmfree_compiler.backends.cpu.layouts import LAYOUTS
from mmfree_compiler.models import MatMulFreeLM
from mmfree_compiler.models.config import SHAPES, ModelConfig
from mmfree_compiler.runtime import load

CONFIG = ModelConfig.of(64, 2, 100)
SHAPE = Shape("tiny", hidden=64, layers=2, intermediate=CONFIG.intermediate, vocabulary=100)

# Names of MatMulFreeLM -> those of TorchLM.
NAMES = {
    "model.embeddings.weight": "table",
    "lm_head.": "head.",
    "model.": "",
    "attn.g_norm": "g_norm",
    "attn.i_proj": "i",
    "attn.f_proj": "f",
    "attn.g_proj": "g",
    "attn.o_proj": "o",
    "mlp.gate_proj": "up",
    "mlp.down_proj": "down",
}


def _renamed(name: str) -> str:
    for theirs, own in NAMES.items():
        name = name.replace(theirs, own)
    return name


@pytest.fixture(scope="module")
def pair() -> tuple[TorchLM, MatMulFreeLM]:
    """A peer's model for prompts of 5 tokens, and the model that it stands for."""
    torch.manual_seed(0)
    peer, model = TorchLM(SHAPE, 1, 5), MatMulFreeLM(CONFIG)
    values = peer.state_dict() | {"lower_bounds": torch.zeros(2, 64)}  # effective: 0, then 1/2
    values["layers.0.bound"].zero_()
    stored = {name: values[_renamed(name)] for name, _ in model.named_parameters()}
    for name in stored:
        if name.endswith(("proj.weight", "lm_head.weight")):
            stored[name] = stored[name] * SCALE
    model.load_state_dict(stored)
    return peer, model.eval()


@torch.no_grad()
def test_the_peer_computes_the_model(pair: tuple[TorchLM, MatMulFreeLM]) -> None:
    peer, model = pair
    logits, state = model(peer.tokens)
    torch.testing.assert_close(peer(), logits[:, -1], rtol=0, atol=1e-3)
    step = TorchLM(SHAPE, 1, 1)
    step.load_state_dict(peer.state_dict() | {"tokens": peer.tokens[:, -1:]})
    following, _ = model(peer.tokens[:, -1:], state)
    torch.testing.assert_close(step(), following[:, -1], rtol=0, atol=1e-3)
    assert step.tokens.item() == following.argmax().item()


@torch.no_grad()
@pytest.mark.parametrize("length", [1, 5])
def test_the_peer_is_one_graph(length: int) -> None:
    model = TorchLM(SHAPE, 1, length)
    before = _copied(model)
    expected, after = model(), _copied(model)
    model.load_state_dict(before)
    compiled = torch.compile(model, backend="eager", fullgraph=True, dynamic=False)
    torch.testing.assert_close(compiled(), expected)
    torch.testing.assert_close(_copied(model), after)
    assert not torch.equal(after["layers.1.state"], before["layers.1.state"])


def _copied(model: TorchLM) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def test_the_recurrence_of_the_peers() -> None:
    c, forget, h0 = torch.rand(2, 3, 32), torch.rand(2, 3, 32), torch.rand(2, 32)
    expected = torch.ops.mmfree.mlgru_scan(c, forget, h0)
    assert torch.equal(recurrence(c, forget, h0), expected)
    assert recurrence(c, forget, h0.bfloat16()).dtype == torch.bfloat16
    assert interpreted("gpu_recurrence.differing") == 0


def test_calls_of_a_task() -> None:
    assert call_shape(Task("decode", 16)) == (16, 1)
    assert call_shape(Task("prefill", 512)) == (1, 512)


def test_products_of_a_call() -> None:
    for dtype, exact in ((torch.bfloat16, torch.float32), (torch.int8, torch.int32)):
        pairs = list(products.operands(SHAPE, Task("decode", 32), dtype))
        assert sum(weight.numel() for _, weight in pairs) == SHAPE.body_weights + SHAPE.head_weights
        for (rows, weight), found in zip(pairs, products.multiplied(pairs), strict=True):
            expected = (rows.to(exact) @ weight.to(exact).t()).to(found.dtype)
            torch.testing.assert_close(found, expected, rtol=0.02, atol=1)


def test_int8_products_leave_out_the_head_of_a_prompt() -> None:
    pairs = list(products.operands(SHAPE, Task("prefill", 32), torch.int8))
    assert sum(weight.numel() for _, weight in pairs) == SHAPE.body_weights


def test_a_model_to_compile_takes_no_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(SHAPES, "tiny", CONFIG)
    model = models.uniform("tiny")
    assert {name: x.shape for name, x in model.named_parameters()} == {
        name: x.shape for name, x in MatMulFreeLM(CONFIG).named_parameters()
    }
    assert {x.untyped_storage().nbytes() for x in model.parameters()} == {2}
    assert not {x.dtype for x in model.parameters()} - {torch.bfloat16}


@pytest.fixture(scope="module")
def drawn(tiny_artifact: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny model for any CPU with random weights, from a file without weights."""
    folder = tmp_path_factory.mktemp("models")
    models.write_blank(read_artifact(tiny_artifact), models.blank_path(SHAPE, "cpu", folder))
    assert set(models.prepare(SHAPE, "cpu", folder, folder)) == {"weights"}
    return models.artifact_path(SHAPE, "cpu", folder)


def test_models_have_random_weights(drawn: Path, tiny_artifact: Path) -> None:
    found, before = read_artifact(drawn), read_artifact(tiny_artifact)
    assert found.entry.tensors == before.entry.tensors
    for name, entry in found.entry.tensors.items():
        same = np.array_equal(found.tensor(name), before.tensor(name))
        assert same == (entry.role not in ("ternary", "table"))
        if entry.role == "ternary":
            layout = LAYOUTS[entry.layout]
            codes = layout.unpack(found.tensor(name)[-1], (entry.shape[0], entry.shape[1]))
            assert set(codes.ravel().tolist()) == {-1, 0, 1}
    logits, _ = load(drawn)([[1, 2, 3]])
    assert np.isfinite(logits).all()


def test_ours_runs_every_kind_of_task(drawn: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sampling, "LEAST_SECONDS", 0)
    monkeypatch.setattr(ours, "BATCH_STEPS", 2)
    model = ours.Loaded(drawn)
    for kind, size in (("decode", 1), ("decode", 3), ("prefill", 20), ("load", 0)):
        sample = model.samples[kind](size)
        sample()
        sample()


def test_a_step_of_several_is_timed_without_their_prompts(
    drawn: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, clock = ours.Loaded(drawn), [0.0]

    def generate_batch(prompts: list[list[int]], max_new_tokens: int, **_: object) -> None:
        clock[0] += 7.0 * len(prompts) + 0.25 * max_new_tokens

    monkeypatch.setattr(model.session, "generate_batch", generate_batch)
    monkeypatch.setattr("benchmarks.gpu.ours.time.perf_counter", lambda: clock[0])
    assert model.samples["decode"](3)() == 0.25
