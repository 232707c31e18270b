"""The reference's integer sums are exact for any K, in whichever type they are taken."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mmfree_compiler.ops.ternary_linear import _FP32_MAX_K, ternary_linear

ONE = torch.ones(1)


def sums(codes: Tensor, weight: Tensor) -> Tensor:
    return ternary_linear(codes, ONE, weight, ONE, None)


def exact(codes: Tensor, weight: Tensor) -> Tensor:
    return (codes.long() @ weight.long().T).float()


@given(
    tokens=st.integers(1, 9), n=st.integers(1, 20), k=st.integers(1, 600), seed=st.integers(0, 99)
)
def test_sums_are_exact(tokens: int, n: int, k: int, seed: int) -> None:
    random = torch.Generator().manual_seed(seed)
    codes = torch.randint(-128, 128, (tokens, k), generator=random, dtype=torch.int8)
    weight = torch.randint(-1, 2, (n, k), generator=random, dtype=torch.int8)
    assert torch.equal(sums(codes, weight), exact(codes, weight))


@pytest.mark.parametrize("k", [_FP32_MAX_K - 1, _FP32_MAX_K, _FP32_MAX_K + 1, 2 * _FP32_MAX_K + 1])
@pytest.mark.parametrize("code", [-128, -127, 127])
def test_the_largest_sums(code: int, k: int) -> None:
    """All products of one sign, and one that makes the sum odd."""
    codes = torch.full((2, k), code, dtype=torch.int8)
    codes[1, k // 2] += 1 if code < 0 else -1
    weight = torch.ones(3, k, dtype=torch.int8)
    weight[1] = -1
    assert torch.equal(sums(codes, weight), exact(codes, weight))


def test_autocast_does_not_round_sums() -> None:
    random = torch.Generator().manual_seed(0)
    codes = torch.randint(-128, 128, (4, 500), generator=random, dtype=torch.int8)
    weight = torch.randint(-1, 2, (8, 500), generator=random, dtype=torch.int8)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.ops.mmfree.ternary_linear(codes, ONE, weight, ONE, None)
    assert torch.equal(found, exact(codes, weight))
