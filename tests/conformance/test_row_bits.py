"""Norms and quantizers on rows that go wrong first: the bits of the references on every variant."""

from __future__ import annotations

from functools import cache

import pytest
import torch
from op_modules import runnable_variants
from special_values import Rows, assert_same_bits, bit_patterns
from torch import Tensor

import mmfree_compiler as mmf
from mmfree_compiler.compiler import CompiledModel
from mmfree_compiler.runtime import Session

RUNNABLE = runnable_variants()
WIDTHS = [1, 15, 17, 129, 2047]

variants = pytest.mark.parametrize("variant", RUNNABLE)


def forced_rows(width: int) -> Tensor:
    """Zeros of both signs, denormals, huge values, single outliers, every size, random bits."""
    generator = torch.Generator().manual_seed(width)
    normal = torch.randn(1024, width, generator=generator)  # some codes fall on a .5 edge
    sizes = torch.tensor([10.0**k for k in range(-45, 38)]).float()
    sized = normal[torch.arange(len(sizes)) % 64] * sizes[:, None]
    outliers = normal[:8].clone()
    outliers[:, -1] = torch.tensor([1e30, -3.4028235e38, 1e-45, 1e4, -1e19, 1.9e19, 65504.0, -1e5])
    signed = torch.stack([torch.zeros(width), -torch.zeros(width), normal[0] * 0])
    ties = (torch.arange(width) % 255 - 127).float()[None] * torch.tensor([[0.5], [1.0], [1.5]])
    broken = normal[:3].clone()
    broken[:, 0] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    random = bit_patterns(8 * width, seed=width).view(8, width)
    finite = random.where(random.isfinite(), 1.0)
    return torch.cat([normal, sized, outliers, signed, ties, broken, random, finite])


@cache
def compiled(width: int) -> CompiledModel:
    example = torch.ones(2, width)
    target = f"cpu:{','.join(RUNNABLE)}"
    return mmf.compile(Rows(width), target, example_inputs=(example, example), threads=2)


@variants
@pytest.mark.parametrize("width", WIDTHS)
def test_rows(variant: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tokens in one call, and a call for each token."""
    monkeypatch.setenv("MMFREE_VARIANT", variant)
    session, module = Session(compiled(width).artifact, threads=2), Rows(width)
    x = forced_rows(width)
    h = x.flip(0)
    expected = module(x, h)
    for k, (a, b) in enumerate(zip(session(x, h), expected, strict=True)):
        assert_same_bits(a, b, f"output {k} of {width} columns", x)
    for row in range(0, len(x), 29):
        for a, b in zip(session(x[[row]], h[[row]]), expected, strict=True):
            assert_same_bits(a, b[[row]], f"row {row} of {width} columns", x[[row]])
