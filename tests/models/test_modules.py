"""The layers: quantizers, straight-through gradients, states, padding, export."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st

from mmfree_compiler.errors import InputError
from mmfree_compiler.models import GLU, MLGRU, BitLinear, MatMulFreeLM, ModelConfig, RMSNorm
from mmfree_compiler.models.modules import quantize_activations, quantize_weight

VARIANTS: dict[str, dict[str, Any]] = {
    "plain": {},
    "heads": {"num_heads": 4, "expand_ratio": 2},
    "unbounded": {"use_lower_bound": False},
    "tied": {"tie_word_embeddings": True},
    "shared convolution": {"use_short_conv": True},
    "separate convolutions": {"use_short_conv": True, "share_conv_kernel": False},
}
every_variant = pytest.mark.parametrize("variant", VARIANTS)


def build(variant: str) -> MatMulFreeLM:
    torch.manual_seed(0)
    config = ModelConfig.of(32, 2, 48, intermediate_size=40, **VARIANTS[variant])
    model = MatMulFreeLM(config)
    if config.use_lower_bound:
        torch.nn.init.normal_(model.model.lower_bounds)  # zeros would hide their use
    return model.eval()


def tokens(batch: int, length: int) -> torch.Tensor:
    return torch.randint(0, 48, (batch, length), generator=torch.Generator().manual_seed(1))


def assert_alike(found: torch.Tensor, wanted: torch.Tensor) -> None:
    """Equal but for rare roundings: other shapes sum in another order, which may flip a code."""
    assert found.shape == wanted.shape
    assert (found - wanted).abs().mean() < 1e-3 * wanted.abs().mean()


@given(st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=40))
def test_weights_become_ternary(values: list[float]) -> None:
    weight = torch.tensor(values)
    scale = weight.abs().mean().clamp(min=1e-5)
    codes = quantize_weight(weight) / scale
    wanted = torch.tensor([max(-1, min(1, round((v / scale).item()))) for v in weight])
    edge = ((weight / scale).abs() - 0.5).abs() < 1e-5  # either rounding is right here
    assert torch.equal(codes.round()[~edge], wanted.float()[~edge])


def test_activations_round_half_to_even() -> None:
    x = torch.tensor([127.0, 0.5, 1.5, 2.5, -0.5, -1.5])
    assert quantize_activations(x).tolist() == [127, 0, 2, 2, 0, -2]


def test_rows_of_zeros_stay_zero() -> None:
    assert not BitLinear(8, 4)(torch.zeros(2, 8)).any()


def test_rms_norm() -> None:
    norm = RMSNorm(2, eps=0.0)
    torch.nn.init.constant_(norm.weight, 3.0)
    torch.testing.assert_close(
        norm(torch.tensor([[3.0, 4.0]])), torch.tensor([[9.0, 12.0]]) / 12.5**0.5
    )


def test_gradients_pass_straight_through() -> None:
    layer = BitLinear(16, 8, bias=True)
    x = torch.randn(5, 16)
    upstream = torch.randn(5, 8)
    layer(x).backward(upstream)
    assert layer.weight.grad is not None
    assert layer.bias is not None
    assert layer.norm.weight.grad is not None
    y = layer.norm(x)
    torch.testing.assert_close(layer.weight.grad, upstream.T @ quantize_activations(y))
    torch.testing.assert_close(layer.bias.grad, upstream.sum(0))
    through = (upstream @ quantize_weight(layer.weight)) * F.rms_norm(x, (16,), eps=1e-6)
    torch.testing.assert_close(layer.norm.weight.grad, through.sum(0))


@every_variant
def test_every_weight_that_is_used_learns(variant: str) -> None:
    model = build(variant)
    logits, _ = model(tokens(2, 6))
    logits.square().sum().backward()
    still = [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()]
    assert [name for name in still if "q_conv1d" not in name] == []


@every_variant
@pytest.mark.parametrize("split", [1, 2, 5, 11])
def test_a_state_continues_a_sequence(variant: str, split: int) -> None:
    model, ids = build(variant), tokens(3, 12)
    with torch.no_grad():
        whole, end = model(ids)
        first, state = model(ids[:, :split])
        second, last = model(ids[:, split:], state)
    assert_alike(torch.cat([first, second], 1), whole)
    for a, b in zip(end, last, strict=True):
        for x, y in zip(a, b, strict=True):
            assert_alike(y, x)


@every_variant
def test_left_padding_changes_nothing(variant: str) -> None:
    model, ids = build(variant), tokens(2, 9)
    mask = torch.ones_like(ids)
    mask[0, :4] = 0
    with torch.no_grad():
        padded, state = model(ids, mask=mask)
        alone, state_alone = model(ids[:1, 4:])
    assert_alike(padded[:1, 4:], alone)
    assert_alike(state[-1][-1][:1], state_alone[-1][-1])


def test_right_padding_is_refused() -> None:
    mask = torch.tensor([[1, 1, 1], [1, 1, 0]])
    with pytest.raises(InputError, match="Pad on the left"):
        build("plain")(tokens(2, 3), mask=mask)


@every_variant
def test_export_with_dynamic_batch_and_length(variant: str) -> None:
    model = build(variant)
    dynamic = {"tokens": {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO}}
    program = torch.export.export(model, (tokens(2, 5),), dynamic_shapes=dynamic, strict=False)
    scans = [n for n in program.graph.nodes if "mlgru_scan" in str(n.target)]
    assert len(scans) == 2
    with torch.no_grad():
        assert_alike(program.module()(tokens(3, 8))[0], model(tokens(3, 8))[0])


def test_layers_on_their_own() -> None:
    config = ModelConfig.of(16, 1, 32)
    x = torch.randn(2, 3, 16)
    out, (h,) = MLGRU(config)(x)
    assert out.shape == x.shape
    assert h.shape == (2, 16)
    assert GLU(16, 24)(x).shape == x.shape
