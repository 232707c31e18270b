"""Rows and constants of other sizes than an op takes are refused, also without a comparison."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from op_modules import mm
from torch import Tensor, nn

import mmfree_compiler as mmf
from mmfree_compiler.errors import UnsupportedError

X = torch.randn(1, 3, 16)


class _Calls(nn.Module):
    """A function of rows and constants, which are named a, b, ..."""

    def __init__(self, function: Callable[..., Any], *constants: Tensor) -> None:
        super().__init__()
        self.function = function
        for name, constant in zip("abcd", constants, strict=False):
            self.register_buffer(name, constant)

    def forward(self, x: Tensor) -> Any:
        return self.function(x, *self.buffers())


def linear(x: Tensor, weight: Tensor, scale: Tensor, bias: Tensor | None = None) -> Tensor:
    codes, factor = mm.quantize(x, 1e-5)
    out: Tensor = mm.ternary_linear(codes, factor, weight, scale, bias)
    return out


def norm(x: Tensor, weight: Tensor) -> Tensor:
    out: Tensor = mm.rms_norm(x, weight, 1e-6)
    return out


def norm_quant(x: Tensor, inner: Tensor, weight: Tensor) -> Tensor:
    codes, factor = mm.norm_quant(x, None, 1e-6, [inner], 1e-6, 1e-5)
    out: Tensor = mm.ternary_linear(codes, factor, weight, torch.ones(1), None)
    return out


def conv(x: Tensor, taps: Tensor) -> Tensor:
    out: Tensor = mm.short_conv(x, taps, None)
    return out


WEIGHT = torch.ones(16, 16, dtype=torch.int8)
CASES: dict[str, tuple[Callable[..., Any], tuple[Tensor, ...], str]] = {
    "a scale for each column": (linear, (WEIGHT, torch.ones(16)), "(16,), not (1,) or ()"),
    "a weight of other columns": (linear, (WEIGHT[:, :8], torch.ones(1)), "(16, 8), not (16, 16)"),
    "a bias of a batch": (
        linear,
        (WEIGHT, torch.ones(1), torch.ones(2, 1, 16)),
        "(2, 1, 16), not (16,)",
    ),
    "a norm of three rows": (norm, (torch.ones(3, 1),), "(3, 1), not (16,)"),
    "a norm in front of codes": (norm_quant, (torch.ones(1), WEIGHT), "(1,), not (16,)"),
    "taps of other columns": (conv, (torch.ones(8, 4),), "(8, 4), not (16, any)"),
}


@pytest.mark.parametrize("case", CASES)
def test_what_does_not_fit_is_refused(case: str) -> None:
    function, constants, cause = CASES[case]
    with pytest.raises(UnsupportedError) as error:
        mmf.compile(_Calls(function, *constants), "reference", example_inputs=(X,), check=False)
    assert f"has shape {cause}" in str(error.value)


@pytest.mark.parametrize("scale", [torch.ones(1), torch.ones(())])
def test_what_fits_is_compiled(scale: Tensor) -> None:
    module = _Calls(linear, WEIGHT, scale, torch.ones(16))
    assert torch.equal(mmf.compile(module, "reference", example_inputs=(X,))(X), module(X))
