"""Operations: none writes what outlives the call, none is random, each with its line."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfree_compiler.errors import TraceError
from mmfree_compiler.trace import trace

X = torch.randn(2, 3, 8)


class _Does(nn.Module):
    def __init__(self, computes: Callable[[Any, Tensor], Tensor]) -> None:
        super().__init__()
        self.computes = computes
        self.n = nn.Buffer(torch.zeros(8))
        self.weight = nn.Parameter(torch.ones(8))
        self.plain = torch.zeros(8)
        self.norm = nn.BatchNorm1d(8)

    def forward(self, x: Tensor) -> Tensor:
        return self.computes(self, x)


def _part(_: Any, x: Tensor) -> Tensor:
    x[..., 0] = 0
    return x * 2


def _autocast(enabled: bool) -> Callable[[Any, Tensor], Tensor]:
    def computes(_: Any, x: Tensor) -> Tensor:
        with torch.autocast("cpu", torch.bfloat16, enabled=enabled):
            return x @ x.mT

    return computes


def _with_gradients(_: Any, x: Tensor) -> Tensor:
    with torch.enable_grad():
        return x * 2


REFUSED: dict[str, tuple[str, Callable[[Any, Tensor], Tensor]]] = {
    "buffer": ("writes into n,", lambda m, x: x * m.n.add_(1)),
    "buffer copied into": ("writes into n,", lambda m, x: x * m.n.copy_(x[0, 0])),
    "part of a buffer": ("writes into n,", lambda m, x: x * m.n[:4].add_(1).sum()),
    "parameter": ("writes into weight,", lambda m, x: x * m.weight.mul_(2)),
    "attribute": ("writes into plain,", lambda m, x: x * m.plain.add_(1)),
    "statistics": ("changes _Does.norm.training,", lambda m, x: m.norm.train()(x.mT).mT),
    "input": ("writes into x,", lambda _, x: x.add_(1)),
    "input's part": ("writes into x,", _part),
    "input's view": ("writes into x,", lambda _, x: x.view(-1, 8).add_(1)),
    "input's chunk": ("writes into x,", lambda _, x: x.chunk(2, -1)[0].add_(1)),
    "input perhaps copied": ("writes into x,", lambda _, x: x.contiguous().add_(1)),
    "input as out": ("writes into x,", lambda _, x: torch.mul(x, 2, out=x)),
    "activation in place": ("writes into x,", lambda _, x: F.relu(x, inplace=True)),
    "batch statistics": (
        "depends on the other",
        lambda _, x: F.batch_norm(x, None, None, training=True),
    ),
    "autocast": ("runs under autocast", _autocast(True)),
    "autocast that is off": ("runs under autocast", _autocast(False)),
    "gradients": ("switches gradients on", _with_gradients),
    "rand": ("is random", lambda _, x: x + torch.rand(8)),
    "rand_like": ("is random", lambda _, x: x + torch.rand_like(x)),
    "a generator": (
        "is random",
        lambda _, x: x + torch.randn(8, generator=torch.Generator().manual_seed(1)),
    ),
    "normal_": ("is random", lambda _, x: x + torch.empty(8).normal_()),
    "bernoulli": ("is random", lambda _, x: torch.bernoulli(x.sigmoid())),
    "dropout": ("is random", lambda _, x: F.dropout(x)),
    "dropout in place": ("is random", lambda _, x: F.dropout(x * 2, inplace=True)),
    "attention with dropout": (
        "is random",
        lambda _, x: F.scaled_dot_product_attention(x, x, x, dropout_p=0.5),
    ),
    "rrelu": ("is random", lambda _, x: F.rrelu(x, training=True)),
    "alpha dropout": ("is random", lambda _, x: F.alpha_dropout(x, training=True)),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_a_graph_cannot_repeat_is_refused_with_its_line(name: str) -> None:
    cause, computes = REFUSED[name]
    module, x = _Does(computes).eval(), X.clone()
    before = {key: value.clone() for key, value in module.state_dict().items()}
    random = torch.get_rng_state()
    with pytest.raises(TraceError, match=rf"^\S*{__name__}.py:\d+: \S.*{re.escape(cause)}"):
        trace(module, (x,))
    assert torch.equal(x, X)
    assert torch.equal(torch.get_rng_state(), random)
    assert all(torch.equal(before[key], value) for key, value in module.state_dict().items())


class _Add(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.add_(1)


def test_a_repeated_layer_that_writes_into_the_input_is_refused() -> None:
    with pytest.raises(TraceError, match=r"return x.add_\(1\): writes into input,"):
        trace(nn.Sequential(_Add(), _Add()), (X,))


KEPT: dict[str, Callable[[Any, Tensor], Tensor]] = {
    "a fresh value": lambda _, x: (x * 1).add_(1),
    "a copy": lambda _, x: x.clone().view(-1, 8).add_(1).view(x.shape),
    "a constant of the call": lambda _, x: x * torch.tensor([1.0, 2.0]).add_(1)[0],
    "out": lambda _, x: torch.mul(x, 2, out=torch.empty_like(x)),
    "dropout in evaluation": lambda m, x: F.dropout(x, 0.5, m.training),
    "attention without dropout": lambda _, x: F.scaled_dot_product_attention(x, x, x),
    "rrelu in evaluation": lambda _, x: F.rrelu(x),
    "statistics in evaluation": lambda m, x: m.norm(x.mT).mT,
}


@pytest.mark.parametrize("name", KEPT)
def test_what_a_graph_can_repeat_is_traced(name: str) -> None:
    module = _Does(KEPT[name]).eval()
    gm = trace(module, (X,))
    with torch.no_grad():
        torch.testing.assert_close(gm(X), module(X), rtol=0, atol=0)
