"""Checkpoints whose weights were quantized before they were stored (numerics 4)."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

import mmfree_compiler as mmf
from mmfree_compiler.models import (
    BitLinear,
    MatMulFreeLM,
    ModelConfig,
    load_checkpoint,
    random_checkpoint,
    save_checkpoint,
)
from mmfree_compiler.models.modules import is_ternary, quantize_weight

TOKENS = torch.tensor([[1, 2, 3, 4, 5], [6, 7, 8, 9, 10]])


def quantized(folder: Path, end: str, dtype: torch.dtype, tied: bool = False) -> MatMulFreeLM:
    """Store the weights whose names end so as t / s; the model before, as it computes."""
    config = ModelConfig.of(32, 3, 48, intermediate_size=32, tie_word_embeddings=tied)
    random_checkpoint(folder, config, torch.float32)
    model = load_checkpoint(folder)
    stored = load_file(folder / "model.safetensors")
    layers = [name for name in stored if name.endswith(end)]
    stored |= {name: quantize_weight(stored[name]).to(dtype) for name in layers}
    save_file(stored, folder / "model.safetensors")
    return model


def largest(a: Tensor, b: Tensor) -> float:
    return float((a - b).abs().max() / b.abs().max())


@torch.no_grad()
@pytest.mark.parametrize("end", ["proj.weight", "layers.1.attn.i_proj.weight", "lm_head.weight"])
def test_they_compute_what_the_weights_did_before(tmp_path: Path, end: str) -> None:
    before = quantized(tmp_path, end, torch.float32)
    model = load_checkpoint(tmp_path)
    assert largest(model(TOKENS)[0], before(TOKENS)[0]) < 1e-5
    assert "ternary already" in model.notes[0].text


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("end", ["proj.weight", "layers.1.mlp.down_proj.weight"])
def test_torch_and_compiled_agree(tmp_path: Path, dtype: torch.dtype, end: str) -> None:
    """Also when one of several equal layers is ternary and the others are not."""
    quantized(tmp_path, end, dtype)
    model = load_checkpoint(tmp_path)
    compiled = mmf.compile(model, "reference")
    logits, _ = compiled(TOKENS)
    assert largest(logits, model(TOKENS)[0]) < 1e-5
    assert "ternary already" in compiled.explain().text(notes=True)


def test_a_tied_head(tmp_path: Path) -> None:
    quantized(tmp_path, "model.embeddings.weight", torch.float32, tied=True)
    assert load_checkpoint(tmp_path).lm_head.taken_as_is


def test_saving_keeps_them_as_they_are(tmp_path: Path) -> None:
    quantized(tmp_path / "a", "proj.weight", torch.float32)
    model = load_checkpoint(tmp_path / "a")
    save_checkpoint(model, tmp_path / "b")
    again = load_checkpoint(tmp_path / "b")
    assert torch.equal(again(TOKENS)[0], model(TOKENS)[0])


@torch.no_grad()
def test_other_weights_that_are_loaded_later_are_quantized(tmp_path: Path) -> None:
    """The flag belongs to the weights, not to the module."""
    before = quantized(tmp_path, "proj.weight", torch.float32)
    model = load_checkpoint(tmp_path)
    model.load_state_dict(before.state_dict())
    assert torch.equal(model(TOKENS)[0], before(TOKENS)[0])


def test_training_quantizes_again(tmp_path: Path) -> None:
    """A step leaves no weight ternary; without a quantizer, the layer would be a float one."""
    quantized(tmp_path, "proj.weight", torch.float32)
    model = load_checkpoint(tmp_path).train()
    assert not any(part.taken_as_is for part in model.modules() if isinstance(part, BitLinear))
    assert not model.eval().lm_head.taken_as_is


@torch.no_grad()
def test_a_module_that_quantizes_ternary_weights_is_followed() -> None:
    layer = BitLinear(64, 16).eval()
    layer.weight.copy_(quantize_weight(layer.weight))
    x = torch.randn(4, 64, generator=torch.Generator().manual_seed(0))
    compiled = mmf.compile(layer, "reference", example_inputs=(x,))
    assert largest(compiled(x), layer(x)) < 1e-5
    taken = BitLinear(64, 16).eval()
    taken.load_state_dict(layer.state_dict())
    assert largest(taken(x), layer(x)) > 0.1  # the smaller scale of the other


@pytest.mark.parametrize(
    ("values", "ternary"),
    [
        ([0.5, -0.5, 0.0], True),
        ([0.5, 0.5, 0.5], True),
        ([0.0, 0.0, 0.0], True),
        ([0.5, -0.25, 0.0], False),
        ([0.5] * 5000 + [0.25], False),
        ([0.0] * 5000 + [0.25, -0.25], True),
        ([0.5, float("nan"), 0.0], False),
    ],
)
def test_is_ternary(values: list[float], ternary: bool) -> None:
    assert is_ternary(torch.tensor(values)) == ternary
