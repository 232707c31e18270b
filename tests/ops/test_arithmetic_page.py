"""The BitLinear that docs/arithmetic.md writes out in NumPy has the bits of the references."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import torch

from mmfree_compiler.ops.norm_quant import norm_quant
from mmfree_compiler.ops.ternary_linear import ternary_linear

PAGE = Path(__file__).parents[2] / "docs" / "arithmetic.md"
EPS, QUANT_EPS = 1e-6, 1e-5


def written() -> Any:
    """The page's `bit_linear`."""
    (code,) = (
        block
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
        if "def bit_linear" in block
    )
    names: dict[str, Any] = {}
    exec(code, names)
    return names["bit_linear"]


@pytest.mark.parametrize("size", [1e-3, 1.0, 1e4, 1e18])
def test_bit_linear(size: float) -> None:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(256, 129, generator=generator) * size
    x[0] = 0
    norm_weight = torch.randn(129, generator=generator)
    t = torch.randint(-1, 2, (17, 129), generator=generator, dtype=torch.int8)
    weight_scale = torch.tensor([0.037])
    codes, scale = norm_quant(x, None, 0.0, [norm_weight], EPS, QUANT_EPS)
    expected = ternary_linear(codes, scale, t, weight_scale, None)
    ours = written()(x.numpy(), norm_weight.numpy(), t.numpy(), weight_scale.numpy(), EPS)
    assert torch.equal(torch.from_numpy(ours), expected)
