"""verify: hand-made models whose divergence is known."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmfree_compiler.errors import InputError
from mmfree_compiler.models import MatMulFreeLM, ModelConfig
from mmfree_compiler.passes.arithmetic import compute
from mmfree_compiler.verify import WINDOW, Report, verify

TOKENS = np.arange(2 * WINDOW + 10) % 2


def constant(*probabilities: float) -> Any:
    """A model that predicts the same distribution after every token."""
    logits = torch.tensor(probabilities).log()
    return lambda tokens, _: (logits.expand(*tokens.shape, len(probabilities)), None)


def test_a_model_agrees_with_itself() -> None:
    model = constant(0.25, 0.75)
    report = verify(model, model, TOKENS)
    assert (report.kl_mean, report.kl_max, report.top1_agreement, report.ratio) == (0, 0, 1, 1)
    assert report.passed
    assert report.tokens == len(TOKENS) - 1


def test_known_divergence_and_perplexity() -> None:
    report = verify(constant(0.5, 0.5), constant(0.25, 0.75), np.array([0, 1, 1, 1]))
    expected = 0.25 * math.log(0.25 / 0.5) + 0.75 * math.log(0.75 / 0.5)
    # The logits are fp32.
    assert report.kl_mean == pytest.approx(expected, rel=1e-6)
    assert report.kl_max == pytest.approx(expected, rel=1e-6)
    assert report.perplexity == pytest.approx(2, rel=1e-6)
    assert report.reference_perplexity == pytest.approx(4 / 3, rel=1e-6)
    assert report.top1_agreement == 0  # equal logits: the lower id
    assert not report.passed


@pytest.mark.parametrize(("ratio", "passed"), [(1.0009, True), (1.0011, False), (0.9989, False)])
def test_verdict(ratio: float, passed: bool) -> None:
    assert Report(1, 0, 0, 1, ratio * 7, 7).passed is passed


def test_nan_does_not_pass() -> None:
    assert not verify(constant(math.nan, math.nan), constant(0.5, 0.5), TOKENS).passed


def test_nan_is_no_agreement() -> None:
    report = verify(constant(math.nan, math.nan), constant(math.nan, math.nan), TOKENS)
    assert report.top1_agreement == 0
    assert not report.passed
    numbers = report.kl_mean, report.kl_max, report.perplexity, report.reference_perplexity
    assert all(map(math.isnan, numbers))
    assert verify(constant(0.5, math.nan), constant(0.5, 0.5), TOKENS).top1_agreement == 0


def test_impossible_text_does_not_pass() -> None:
    assert not verify(constant(1, 0), constant(0.5, 0.5), TOKENS).passed


def test_windows_are_bounded_and_carry_states() -> None:
    seen: list[int] = []

    def counting(tokens: Tensor, state: int | None) -> tuple[Tensor, int]:
        assert (state or 0) == sum(seen)
        seen.append(tokens.shape[1])
        return torch.zeros(*tokens.shape, 2), sum(seen)

    reported: list[int] = []
    verify(counting, constant(0.5, 0.5), TOKENS, reported.append)
    assert seen == reported == [WINDOW, WINDOW, 9]


def test_windows_do_not_change_the_reference() -> None:
    torch.manual_seed(0)
    model = MatMulFreeLM(ModelConfig.of(32, 1, 5)).eval()
    tokens = np.random.default_rng(0).integers(5, size=WINDOW + 40)

    def at_once(part: Tensor, before: Tensor | None) -> tuple[Tensor, Tensor]:
        text = part if before is None else torch.cat([before, part], dim=1)
        return model(text)[0][:, -part.shape[1] :], text

    # Products of another shape may be summed in another order.
    assert verify(model, at_once, tokens).kl_max < 1e-6


@pytest.mark.parametrize("length", [0, 1])
def test_nothing_to_predict(length: int) -> None:
    with pytest.raises(InputError, match="nothing to predict"):
        verify(constant(1), constant(1), TOKENS[:length])


def test_different_vocabularies() -> None:
    with pytest.raises(InputError, match="3 logits, the reference has 2"):
        verify(constant(0.5, 0.25, 0.25), constant(0.5, 0.5), TOKENS)


def test_the_reference_has_the_ternary_weights_of_the_artifact() -> None:
    """Its mean |w| is the one that was folded, of any order of the sum."""
    weight = torch.randn(300, 1000, generator=torch.Generator().manual_seed(0))
    folded = compute(torch.ops.aten.mean.default, (weight.abs(),), {})

    def logits(mean: Tensor, tokens: Tensor) -> Tensor:
        row: Tensor = (mean - folded) * 1e9 * torch.arange(4.0)
        return row.expand(1, tokens.shape[1], 4)

    for order in (weight, weight.flip(0), weight.T.contiguous()):
        report = verify(
            lambda tokens, _: (logits(folded, tokens), None),
            lambda tokens, _, w=order: (logits(w.abs().mean(), tokens), None),  # type: ignore[misc]
            np.arange(3),
        )
        assert report.kl_max == 0
