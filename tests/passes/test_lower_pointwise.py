"""Pointwise expressions of rows, numbers and constants, each on either side."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx import GraphModule

from mmfree_compiler.ops import OPS
from mmfree_compiler.passes import GRAPH, left_over, run
from mmfree_compiler.trace import trace

WIDTH = 4


class Expression(nn.Module):
    """A function of a row x and of a constant row."""

    def __init__(self, function: Callable[[Tensor, Tensor], Any]) -> None:
        super().__init__()
        self.function = function
        self.row = nn.Parameter(torch.linspace(0.5, 1.5, WIDTH))

    def forward(self, x: Tensor) -> Any:
        return self.function(x, self.row)


def lowered(function: Callable[[Tensor, Tensor], Any]) -> tuple[GraphModule, Expression]:
    module = Expression(function)
    return run(GRAPH, trace(module, (torch.ones(2, 3, WIDTH),))), module


UNARY: list[Callable[[Tensor], Tensor]] = [
    torch.sigmoid,
    torch.tanh,
    torch.relu,
    torch.neg,
    torch.abs,
    nn.functional.silu,
    torch.square,
    lambda x: x.clamp(-0.5, 0.7),
    lambda x: x.clamp(min=0.1),
    lambda x: x.abs().sqrt(),
    lambda x: (1 + x.abs()).rsqrt(),
    lambda x: (-x.abs()).exp(),
]
BINARY: list[Callable[[Any, Any], Any]] = [
    operator.add,
    operator.sub,
    operator.mul,
    lambda x, y: x / (y * y + 1),
    lambda x, y: y - x,
    lambda x, y: x * 0.5 + y,
    lambda x, y: 2 / (x * x + 1.5) + y,
]
LEAVES = st.sampled_from(["x", "row", 0.25, 3])


def _combine(children: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.tuples(st.sampled_from(UNARY), children) | st.tuples(
        st.sampled_from(BINARY), children, children
    )


def value(tree: Any, x: Tensor, row: Tensor) -> Any:
    if isinstance(tree, tuple):
        function, *arguments = tree
        evaluated = [value(argument, x, row) for argument in arguments]
        if len(evaluated) == 1 and not isinstance(evaluated[0], Tensor):
            evaluated = [torch.tensor(float(evaluated[0]))]
        return function(*evaluated)
    return {"x": x, "row": row}.get(tree, tree)


@settings(max_examples=25, deadline=None)
@given(tree=st.recursive(LEAVES, _combine, max_leaves=6))
def test_expressions_become_table_ops(tree: Any) -> None:
    gm, module = lowered(lambda x, row: x + value(tree, x, row))
    assert left_over(gm, set(OPS)) == []
    x = torch.randn(1, 5, WIDTH)
    with torch.no_grad():
        # 1/x * c instead of c / x, and sums in another order, differ in the last bits.
        torch.testing.assert_close(gm(x), module(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, _: x * x.mean(-1, keepdim=True),  # a column, not a row
        lambda x, _: x + torch.arange(2 * 3).reshape(1, 6, 1),  # a constant that varies by token
        lambda x, _: x.cumsum(-1) * 2,
        lambda x, _: torch.add(x, x, alpha=2),
        lambda x, _: x.exp2(),
    ],
)
def test_what_is_not_a_row_is_left_over(function: Callable[[Tensor, Tensor], Any]) -> None:
    module = Expression(function)
    x = torch.ones(2, 6, WIDTH)
    gm = run(GRAPH, trace(module, (x,), dynamic=False))
    assert left_over(gm, set(OPS))
    torch.testing.assert_close(gm(x), module(x))
