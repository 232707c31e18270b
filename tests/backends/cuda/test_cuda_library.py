"""The device library has the bits of the references, in Triton's interpreter and on a GPU."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import torch
from op_modules import mm
from special_values import Pointwise, Rows, assert_same_bits, forced_rows, pairs
from torch import Tensor
from triton_process import interpreted, native

Run = Callable[..., Any]
WIDTHS = [1, 15, 17, 129, 2047]

has_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
runs = pytest.mark.parametrize(
    "run",
    [interpreted, pytest.param(native, marks=[has_gpu, pytest.mark.gpu])],
    ids=["interpreted", "native"],
)
widths = pytest.mark.parametrize("width", WIDTHS)


@runs
def test_pointwise_functions(run: Run) -> None:
    """Special values in all pairs, and random bit patterns; the third operand is one flipped."""
    x, y = (operand.flatten()[: 2**16] for operand in pairs(37))
    z = x.flip(0)
    step = mm.mlgru_scan(y[None, None], z[None, None], x[None])[0, 0]
    expected = [*Pointwise()(x, y), *mm.mlgru_gates(x, y, z), step]
    names = [*Pointwise.names, "bounded c", "bounded forget", "scan_step"]
    got = run("library_kernels.pointwise", x, y, z)
    for name, a, b in zip(names, got, expected, strict=True):
        assert_same_bits(a, b, name, x, y, z)


def weights(width: int) -> Tensor:
    """(2, width): those of an outer and of an inner norm."""
    module = Rows(width)
    return torch.stack([module.outer, module.inner])


def rows(width: int) -> Tensor:
    """forced_rows, and one whose squares overflow with the weight of the outer norm only."""
    last = torch.zeros(1, width)
    last[0, weights(width)[0].argmax()] = 1.7e19
    return torch.cat([forced_rows(width), last])


@cache
def quantized(width: int) -> list[Tensor]:
    """(4, M, K) codes, (4, M) scales, (4, M) sums of `rows`.

    They are of quantize, norm_quant with one norm, and norm_quant with two norms for two consumers.
    """
    x, (outer, inner) = rows(width), weights(width)
    single = [*mm.quantize(x, 1e-5), *mm.norm_quant(x, None, 0.0, [inner], 1e-6, 1e-5)]
    both = [*single, *mm.norm_quant(x, outer, 1e-6, [inner, outer], 1e-6, 1e-5)]
    codes, scales = torch.stack(both[::2]), torch.stack(both[1::2])[..., 0]
    return [codes, scales, codes.sum(-1, dtype=torch.int32)]


def assert_same_codes(got: list[Tensor], expected: list[Tensor]) -> None:
    codes, scales, sums = got
    assert torch.equal(codes, expected[0])
    assert_same_bits(scales, expected[1], "scale")
    assert torch.equal(sums, expected[2])


@runs
@widths
def test_stacks_of_rows(run: Run, width: int) -> None:
    x, w = rows(width), weights(width)
    h = x.flip(0)
    norms, *codes = run("library_kernels.stacked", x, h, w)
    assert_same_bits(norms[0], mm.rms_norm(x, w[1], 1e-6), "rms_norm", x)
    assert_same_bits(norms[1], mm.gated_norm(x, h, w[1], 1e-6), "gated_norm", x, h)
    assert_same_codes(codes, quantized(width))


@runs
@widths
def test_single_rows(run: Run, width: int) -> None:
    """In the interpreter, which takes 40 ms for one, a sample of those that are not normal."""
    sample = slice(None) if run is native else slice(1024, None, 7)
    x, w = rows(width)[sample], weights(width)
    norms, *codes = run("library_kernels.one_by_one", x, w)
    assert_same_bits(norms[0], mm.rms_norm(x, w[1], 1e-6), "rms_norm", x)
    assert_same_bits(norms[1], mm.center(x), "center", x)
    assert_same_codes(codes, [part[2:, sample] for part in quantized(width)])
