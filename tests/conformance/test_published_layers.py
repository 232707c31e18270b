"""The layers of the golden cases, each on the published inputs, and their ternary codes.

On the reference backend: every other target gives the same bits (test_row_bits.py).
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from golden_cases import GoldenCase, golden_cases
from torch import Tensor, nn

import mmfree_compiler as mmf
from mmfree_compiler.models import BitLinear


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


@pytest.mark.parametrize("case", golden_cases("taps"), ids=str)
def test_int8_codes_and_products(case: GoldenCase) -> None:
    """Codes are equal, outputs agree to 1e-5."""
    layers = {n: m for n, m in case.model().named_modules() if isinstance(m, BitLinear)}
    inputs = tuple(case.taps[f"{name}|in"] for name in layers)
    seen = [seen_through_identity(layer) for layer in layers.values()]
    codes, products = outputs(seen, inputs), outputs([*layers.values()], inputs)
    for name, code, product in zip(layers, codes, products, strict=True):
        # identity / its mean |w| of 1/K; scale = 1 / act_scale: what is left is the code.
        scaled = code[0] * code.shape[-1] * case.taps[f"{name}|act_scale"]
        assert (scaled - scaled.round()).abs().max() < 1e-3
        assert torch.equal(scaled.round().to(torch.int8), case.taps[f"{name}|q_int8"]), name
        expected = case.taps[f"{name}|out"]
        assert (product - expected).abs().max() < 1e-5 * expected.abs().max(), name


def outputs(layers: list[BitLinear], inputs: tuple[Tensor, ...]) -> list[Tensor]:
    compiled = mmf.compile(probe(layers), "reference", example_inputs=inputs, check=False)
    return list(compiled(*inputs))


@pytest.mark.parametrize("case", golden_cases("ternary"), ids=str)
def test_ternary_codes(case: GoldenCase) -> None:
    """The compiled program holds the reference's codes, all of them and no others."""
    program = mmf.compile(case.folder, "reference", check=False).artifact.program
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
