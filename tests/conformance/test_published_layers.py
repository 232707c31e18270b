"""The layers of the golden cases, each on the published inputs.

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
    """Codes are equal, outputs agree to 1e-5. Another code would be seen in the outputs as well, so
    only every second layer's are looked at: tracing the layers takes most of the time.
    """
    layers = {n: m for n, m in case.model().named_modules() if isinstance(m, BitLinear)}
    inputs = {name: case.taps[f"{name}|in"] for name in layers}
    seen = {name: seen_through_identity(layers[name]) for name in [*layers][::2]}
    for name, code in outputs(seen, inputs).items():
        # identity / its mean |w| of 1/K; scale = 1 / act_scale: what is left is the code.
        scaled = code[0] * code.shape[-1] * case.taps[f"{name}|act_scale"]
        assert (scaled - scaled.round()).abs().max() < 1e-3
        assert torch.equal(scaled.round().to(torch.int8), case.taps[f"{name}|q_int8"]), name
    for name, product in outputs(layers, inputs).items():
        expected = case.taps[f"{name}|out"]
        assert (product - expected).abs().max() < 1e-5 * expected.abs().max(), name


def outputs(layers: dict[str, BitLinear], inputs: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of each layer, on the input of its name."""
    given, module = tuple(inputs[name] for name in layers), probe([*layers.values()])
    compiled = mmf.compile(module, "reference", example_inputs=given, check=False)
    return dict(zip(layers, compiled(*given), strict=True))
