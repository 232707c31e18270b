"""The torch model against the published reference's own outputs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from golden_cases import SEQUENCES, TOLERANCE, GoldenCase, golden_cases
from published_codes import published

from mmfree_compiler.models import BitLinear
from mmfree_compiler.models.lm import State
from mmfree_compiler.models.modules import quantize_weight
from mmfree_compiler.ops import OPS

CASES = golden_cases()
# The call of a sequence after which a state was saved: for prefill16, the first single token.
STATES = {"whole": {"state_b2": 0}, "stepped": {"prefill16_state": 1, "decode_state": -1}}
every_case = pytest.mark.parametrize("case", CASES, ids=str)
pytestmark = pytest.mark.usefixtures("no_grad")


@pytest.fixture
def no_grad() -> Iterator[None]:
    with torch.no_grad():
        yield


def assert_state(state: State, case: GoldenCase, key: str) -> None:
    for k, layer in enumerate(state):
        for j, tensor in enumerate(layer):
            wanted = case.golden[f"{key}.{k}.{j}"]
            is_convolution = j < len(layer) - 1  # stored (B, width, taps) by the reference
            found = tensor.transpose(1, 2) if is_convolution else tensor.reshape(wanted.shape)
            torch.testing.assert_close(found, wanted, atol=TOLERANCE, rtol=0)


@every_case
@pytest.mark.parametrize("key", SEQUENCES)
def test_logits_and_states(case: GoldenCase, key: str) -> None:
    """Equal up to TOLERANCE, but for codes on a .5 edge: with these as published, everywhere."""
    run = published(case, key)
    assert case.errors(run.logits, key).max() <= TOLERANCE
    for name, call in STATES.get(key, {}).items():
        assert_state(run.states[call], case, name)


@every_case
def test_greedy_tokens_where_the_margin_is_clear(case: GoldenCase) -> None:
    ids, margin = case.golden["greedy_ids"], case.golden["greedy_margin"]
    logits, _ = case.model()(ids)
    clear = margin > 1e-3
    assert torch.equal(logits[:, 15:-1].argmax(-1)[clear], ids[:, 16:][clear])


@pytest.mark.parametrize("case", golden_cases("taps"), ids=str)
def test_every_bit_linear_on_the_reference_inputs(case: GoldenCase) -> None:
    for name, module in case.model().named_modules():
        if not isinstance(module, BitLinear):
            continue
        x = case.taps[f"{name}|in"]
        codes, scale = OPS["quantize"].reference(module.norm(x), 1e-5)
        wanted = case.taps[f"{name}|q_int8"]
        assert torch.equal(codes.reshape(wanted.shape), wanted), name
        # 127 / absmax and its inverse differ by units in the last place.
        torch.testing.assert_close(1 / scale.reshape(-1, 1), case.taps[f"{name}|act_scale"])
        # Dequantized operands are rounded, the reference's too: 1e-5 relative to the row's size.
        out = case.taps[f"{name}|out"]
        assert (module(x) - out).abs().max() < 1e-5 * out.abs().max(), name


@pytest.mark.parametrize("case", golden_cases("ternary"), ids=str)
def test_ternary_codes_and_lower_bounds(case: GoldenCase) -> None:
    model = case.model()
    for name, module in model.named_modules():
        if isinstance(module, BitLinear):
            weight = module.weight.float()
            codes = quantize_weight(weight).sign().to(torch.int8)
            assert torch.equal(codes, case.ternary[f"{name}|ternary"]), name
            torch.testing.assert_close(weight.abs().mean()[None], case.ternary[f"{name}|mean"])
    if model.config.use_lower_bound:
        bounds = torch.stack([b for b in model.model.effective_lower_bounds() if b is not None])
        torch.testing.assert_close(bounds, case.ternary["lower_bounds|effective"])
        assert not bounds[0].any()  # exactly zero: layer 0 has no bound


def test_bundled_cases_are_found() -> None:
    assert {"conv_shared", "tied"} <= {str(case) for case in CASES}
