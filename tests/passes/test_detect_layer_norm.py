"""Layer norms of rows become center, a norm and an addition; others are left over."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
import zoo
from lowering import NAMES, WITH_NORM, WITHOUT_NORM, check, lowered
from torch import Tensor, nn

import mmfree_compiler as mmf
from mmfree_compiler.models import BitLinear
from mmfree_compiler.passes import left_over
from mmfree_compiler.runtime import Session

WIDTH = 32
OPTIONS: dict[str, dict[str, bool]] = {
    "affine": {},
    "without a bias": {"bias": False},
    "plain": {"elementwise_affine": False},
}
options = pytest.mark.parametrize("kind", OPTIONS)


def layer_norm(kind: str, width: int = WIDTH) -> nn.LayerNorm:
    norm = nn.LayerNorm(width, 1e-4, **OPTIONS[kind])
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    return norm


@pytest.fixture
def x() -> Tensor:
    torch.manual_seed(0)
    return torch.randn(2, 3, WIDTH)


@options
def test_by_itself(kind: str, x: Tensor) -> None:
    expected = ["center", "rms_norm", "add"] if kind == "affine" else ["center", "rms_norm"]
    for rows in (x, 100 + x, 1e-3 * x):
        check(layer_norm(kind), rows, expected)


@options
def test_before_a_quantizer(kind: str, x: Tensor) -> None:
    """Without a bias, it is the norm of norm_quant."""
    rest = ["rms_norm", "add", *WITHOUT_NORM] if kind == "affine" else WITH_NORM
    check(nn.Sequential(layer_norm(kind), zoo.Proj(WIDTH, 16, norm=None)), x, ["center", *rest])


@options
def test_before_a_layer_with_a_norm_of_its_own(kind: str, x: Tensor) -> None:
    """Without a bias, it is the outer norm of norm_quant."""
    rest = ["rms_norm", "add", *WITH_NORM] if kind == "affine" else WITH_NORM
    check(nn.Sequential(layer_norm(kind), zoo.Proj(WIDTH, 16)), x, ["center", *rest])


class _Apply(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


def test_with_a_bias_alone_and_the_default_eps(x: Tensor) -> None:
    bias = torch.randn(WIDTH)
    check(_Apply(lambda x: F.layer_norm(x, (WIDTH,), None, bias)), x, ["center", "rms_norm", "add"])


def test_eps_is_the_calls(x: Tensor) -> None:
    """Rows of one deviation: the exact result is d / sqrt(d^2 + eps)."""
    rows = torch.tensor([1.0, -1.0]).repeat(WIDTH // 2).expand(2, 3, WIDTH) * 3e-2
    gm = lowered(_Apply(lambda x: F.layer_norm(x, (WIDTH,), eps=1.6e-3)), x)
    torch.testing.assert_close(gm(rows), rows.sign() * 0.6, rtol=1e-6, atol=0)


LEFT_OVER: dict[str, Callable[[Tensor], Tensor]] = {
    "more than rows": lambda x: F.layer_norm(x.view(*x.shape[:2], 4, 8), (4, 8)).flatten(-2),
    "a computed weight": lambda x: F.layer_norm(x, (WIDTH,), x.sum((0, 1))),
    "a computed bias": lambda x: F.layer_norm(x, (WIDTH,), None, x.sum((0, 1))),
    "in double": lambda x: F.layer_norm(x.double(), (WIDTH,)).float(),
}


@pytest.mark.parametrize("name", LEFT_OVER)
def test_others_are_left_over(name: str, x: Tensor) -> None:
    gm = lowered(_Apply(LEFT_OVER[name]), x)
    assert torch.ops.aten.layer_norm.default in [call.node.target for call in left_over(gm, NAMES)]


@pytest.mark.parametrize("width", [5, 37, 64])
def test_compiled(width: int) -> None:
    """Checked against the module when compiled; rows that are not finite are NaN, others stay."""
    torch.manual_seed(0)
    norm = layer_norm("affine", width)
    module = nn.Sequential(norm, BitLinear(width, 8)).eval()
    x = 10 + torch.randn(2, 3, width)
    artifact = mmf.compile(module, ("reference", "cpu:portable"), example_inputs=(x,)).artifact
    broken = x.clone()
    broken[0, 1, 4], broken[1, 2, 0] = float("inf"), float("nan")
    bad = torch.tensor([[False, True, False], [False, False, True]])
    for target in ("reference", "cpu"):
        session = Session(artifact, target=target)
        fine: Any = session(x)
        torch.testing.assert_close(fine, module(x), rtol=1e-4, atol=1e-4)
        found: Any = session(broken)
        assert torch.equal(found.isnan().all(-1), bad)
        assert torch.equal(found[~bad], fine[~bad])
