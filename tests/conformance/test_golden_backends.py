"""Every golden case of the published model, on the reference backend and on each CPU variant."""

from __future__ import annotations

from functools import cache
from typing import Any

import pytest
import torch
from golden_cases import TOLERANCE, GoldenCase, golden_cases, steady_positions
from op_modules import runnable_variants
from torch import Tensor, nn

import mmfree_compiler as mmf
from mmfree_compiler.compiler import CompiledModel
from mmfree_compiler.models import BitLinear
from mmfree_compiler.runtime import Session

RUNNABLE = runnable_variants()
TARGETS = ["reference", *RUNNABLE]
# One density per variant, to save time: the tests of ops run both.
DENSITIES = {"1.6": RUNNABLE[::2], "2": RUNNABLE[1::2]}

cases = pytest.mark.parametrize("case", golden_cases(), ids=str)
targets = pytest.mark.parametrize("target", TARGETS)


@cache
def compiled(case: GoldenCase, target: str) -> CompiledModel:
    return mmf.compile(case.folder, target)


def session(case: GoldenCase, target: str, monkeypatch: pytest.MonkeyPatch) -> Session:
    """A CPU artifact holds several variants: one compilation serves them."""
    if target == "reference":
        return compiled(case, "reference").session
    monkeypatch.setenv("MMFREE_VARIANT", target)
    density = next(bits for bits, names in DENSITIES.items() if target in names)
    options = ",".join((*DENSITIES[density], f"density={density}"))
    return Session(compiled(case, f"cpu:{options}").artifact)


@cases
@targets
def test_logits(case: GoldenCase, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = session(case, target, monkeypatch)
    golden = case.golden
    for name in ("b2", "b1"):
        ids = golden[f"input_ids_{name}"]
        case.assert_logits(run(ids)[0], f"logits_{name}", ids)


@cases
@targets
def test_left_padding(case: GoldenCase, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    run = session(case, target, monkeypatch)
    ids, mask = case.golden["input_ids_b2"], case.golden["attention_mask_pad"]
    case.assert_logits(run(ids, mask=mask)[0], "logits_pad", ids, mask)


@cases
@targets
def test_prefill_then_decode(
    case: GoldenCase, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """16 tokens at once, then 8 one by one; logits and states after both."""
    run = session(case, target, monkeypatch)
    golden, ids = case.golden, case.golden["input_ids_b2"][:, :24]
    steady = steady_positions(case, ids)
    logits, state = run(ids[:, :16])
    case.assert_logits(logits, "prefill16_logits", ids[:, :16])
    for k in range(8):
        logits, state = run(ids[:, 16 + k : 17 + k], state)
        error = (logits[:, 0] - golden["decode_logits"][:, k]).abs().amax(-1)
        assert (error[steady[:, 16 + k]] < TOLERANCE).all()
        if k == 0:  # the reference's cache was saved after this step, not before it
            assert_state(run, golden, "prefill16_state", state, steady[:, 16])
    assert_state(run, golden, "decode_state", state, steady[:, 23])


def assert_state(
    run: Session, golden: dict[str, Tensor], key: str, state: mmf.runtime.State, steady: Tensor
) -> None:
    """The reference keeps one state per layer; with a convolution, its (B, D, k) comes first."""
    for part in run.artifact.manifest.states:
        found = torch.from_numpy(state.part(part.name))  # (B, layers, *shape)
        convolution = len(part.shape) > 1
        recurrent = "1" if f"{key}.0.1" in golden else "0"
        for layer in range(part.count):
            expected = golden[f"{key}.{layer}.{'0' if convolution else recurrent}"]
            got = found[:, layer].transpose(1, 2) if convolution else found[:, layer]
            error = (got - expected.reshape(got.shape)).abs().flatten(1).amax(-1)
            assert (error[steady] < TOLERANCE).all()


@cases
@targets
def test_greedy_ids(case: GoldenCase, target: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Compared as far as the margin between the best two logits decides (README of the cases)."""
    run = session(case, target, monkeypatch)
    ids, margin = case.golden["greedy_ids"], case.golden["greedy_margin"]
    steady = steady_positions(case, ids)
    for row in range(len(ids)):
        sure = (margin[row] > 1e-3) & steady[row, 15:-1]
        count = int(sure.int().cumprod(0).sum())
        prompt = ids[row, :16].tolist()
        if count:
            made = run.generate(prompt, max_new_tokens=count, temperature=0, stop_tokens=())
            assert [token.id for token in made] == ids[row, 16 : 16 + count].tolist()


def probe(layers: list[BitLinear]) -> nn.Module:
    """Layers side by side, each with an input of its own: f(x0, x1, ...) -> [y0, y1, ...].

    torch.export wants the inputs by name, so the function's text is made to measure.
    """
    names = [f"x{i}" for i in range(len(layers))]
    calls = ", ".join(f"self.layers[{i}]({name})" for i, name in enumerate(names))
    scope: dict[str, Any] = {}
    exec(f"def forward(self, {', '.join(names)}): return [{calls}]", scope)
    kind = type("Probe", (nn.Module,), {"forward": scope["forward"]})
    module: nn.Module = kind()
    module.layers = nn.ModuleList(layers)
    return module


def seen_through_identity(layer: BitLinear) -> BitLinear:
    """The same norm and quantizer before an identity matrix: the outputs are the codes, scaled."""
    width = layer.weight.shape[1]
    seen = BitLinear(width, width)
    seen.norm.weight = layer.norm.weight
    seen.weight = nn.Parameter(torch.eye(width))
    return seen


tapped = pytest.mark.parametrize("case", golden_cases("taps"), ids=str)


@cache
def probed(case: GoldenCase, kind: str) -> tuple[tuple[str, ...], CompiledModel, CompiledModel]:
    """The BitLinears' names, all of them seen through identities, and all of them as they are."""
    layers = {n: m for n, m in case.model().named_modules() if isinstance(m, BitLinear)}
    inputs = tuple(case.taps[f"{name}|in"] for name in layers)
    models = [
        mmf.compile(probe(modules), target=kind, example_inputs=inputs)
        for modules in ([seen_through_identity(m) for m in layers.values()], [*layers.values()])
    ]
    return tuple(layers), models[0], models[1]


@tapped
@targets
@pytest.mark.slow
def test_int8_codes_and_products(
    case: GoldenCase, target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the reference's own inputs, layer by layer: codes are equal, outputs agree to 1e-5."""
    kind = "reference" if target == "reference" else f"cpu:{','.join(RUNNABLE)}"
    names, identities, layers = probed(case, kind)
    inputs = [case.taps[f"{name}|in"] for name in names]
    if target != "reference":
        monkeypatch.setenv("MMFREE_VARIANT", target)
        codes, products = Session(identities.artifact)(*inputs), Session(layers.artifact)(*inputs)
    else:
        codes, products = identities(*inputs), layers(*inputs)
    for name, code, product in zip(names, codes, products, strict=True):
        # identity / its mean |w| of 1/K; scale = 1 / act_scale: what is left is the code.
        scaled = code[0] * code.shape[-1] * case.taps[f"{name}|act_scale"]
        assert (scaled - scaled.round()).abs().max() < 1e-3
        assert torch.equal(scaled.round().to(torch.int8), case.taps[f"{name}|q_int8"]), name
        expected = case.taps[f"{name}|out"]
        assert (product - expected).abs().max() < 1e-5 * expected.abs().max(), name


@pytest.mark.parametrize("case", golden_cases("ternary"), ids=str)
def test_ternary_codes(case: GoldenCase) -> None:
    """The compiled program holds the reference's codes, all of them and no others."""
    program = compiled(case, "reference").artifact.program
    assert program is not None
    ternary = [c for c in program.constants.values() if c.role == "ternary"]
    assert {c.dtype for c in ternary} == {"int8"}
    found = [part.tobytes() for c in ternary for part in c.parts]
    expected = []
    for name, tensor in case.ternary.items():
        if name.endswith("|ternary"):  # a GLU's gate and up are two weights of the program
            halves = tensor.chunk(2) if "gate_proj" in name else (tensor,)
            expected += [half.numpy().tobytes() for half in halves]
    assert sorted(found) == sorted(expected)
