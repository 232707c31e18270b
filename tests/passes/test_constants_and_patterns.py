"""Constant folding by blocks, the tree matcher, and the proof of quantizers, each on its own."""

from __future__ import annotations

import operator
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.fx import GraphModule, Node

from mmfree_compiler.passes import constants
from mmfree_compiler.passes.canonicalize import Canonicalize
from mmfree_compiler.passes.fold_constants import FoldConstants
from mmfree_compiler.passes.pattern import (
    Literal,
    OneOf,
    Var,
    add,
    aten,
    call,
    first,
    match,
    mul,
    one_minus,
)
from mmfree_compiler.passes.ternarize import fold
from mmfree_compiler.trace import trace

X, Y = Var("x"), Var("y")


def last_call(gm: GraphModule) -> Node:
    (output,) = gm.graph.find_nodes(op="output")
    (node,) = output.args[0]
    assert isinstance(node, Node)
    return node


def traced(function: Any, *inputs: Tensor) -> GraphModule:
    class Module(nn.Module):
        def forward(self, *args: Tensor) -> Any:
            return function(*args)

    return trace(Module(), inputs)


# --- the matcher --------------------------------------------------------------------------------


def test_products_match_in_either_order() -> None:
    pattern = mul(call(aten.sigmoid.default, X), Y)
    for function in (lambda a, b: a.sigmoid() * b, lambda a, b: b * a.sigmoid()):
        bound = first(
            pattern, last_call(traced(function, torch.ones(2, 3), torch.ones(2, 3))), set()
        )
        assert bound is not None
        assert (bound["x"].name, bound["y"].name) == ("args_0", "args_1")


def test_a_name_twice_is_one_node() -> None:
    x = torch.ones(2, 3)
    pattern = mul(X, call(aten.sigmoid.default, X))
    assert first(pattern, last_call(traced(lambda a: a * a.sigmoid(), x)), set())
    assert not first(pattern, last_call(traced(lambda a, b: b * a.sigmoid(), x, x)), set())


def test_differences_keep_their_order() -> None:
    x = torch.ones(2, 3)
    node = last_call(traced(operator.sub, x, x))
    assert first(call(aten.sub.Tensor, X, Y), node, set()) == {"x": node.args[0], "y": node.args[1]}
    assert len(list(match(add(X, Y), last_call(traced(operator.add, x, x)), set()))) == 2


def test_one_minus_and_literals() -> None:
    x = torch.ones(2, 3)
    for function in (lambda a: 1 - a, lambda a: -a + 1):
        assert first(one_minus(X), last_call(traced(function, x)), set())
    for function in (lambda a: 2 - a, lambda a: a - 1):
        assert not first(one_minus(X), last_call(traced(function, x)), set())
    node = last_call(traced(lambda a: a.sum(-1, keepdim=True), x))
    assert first(OneOf((call(aten.sum.dim_IntList, X, Literal([-1]), Literal(True)),)), node, set())


# --- constants ----------------------------------------------------------------------------------


class _Weight(nn.Module):
    """A ternary weight quantizer whose result is added to rows, so that it is a constant."""

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        self.weight = nn.Parameter(weight)

    def forward(self, x: Tensor) -> Tensor:
        w = self.weight.float()
        s = 1 / w.abs().mean().clamp(min=1e-5)
        return torch.nn.functional.linear(x, (w * s).round().clamp(-1, 1) / s)


def weight_expression(weight: Tensor) -> tuple[GraphModule, Node]:
    gm = Canonicalize()(trace(_Weight(weight), (torch.zeros(2, weight.shape[1]),)))
    node = last_call(gm).args[1]
    assert isinstance(node, Node)
    return gm, node


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("block", [1, 40, 1 << 17])
def test_blocks_equal_the_whole(
    dtype: torch.dtype, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(constants, "BLOCK", block)
    torch.manual_seed(0)
    gm, node = weight_expression(torch.randn(13, 8).to(dtype))
    whole = constants.evaluate(gm, node)
    parts = list(constants.evaluate_rows(gm, node))
    assert sum(part.shape[0] for _, part in parts) == 13
    assert len(parts) == -(-13 // max(1, block // 8))
    for rows, part in parts:
        assert torch.equal(part, whole[rows])


def test_expressions_of_two_matrices_are_evaluated() -> None:
    class Product(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.v = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.randn(4, 2))

        def forward(self, x: Tensor) -> Tensor:
            return torch.nn.functional.linear(x, self.w * (self.w @ self.v).mean())

    module = Product()
    gm = Canonicalize()(trace(module, (torch.zeros(2, 4),)))
    node = last_call(gm).args[1]
    assert isinstance(node, Node)
    ((rows, block),) = constants.evaluate_rows(gm, node)
    assert rows == slice(0, 3)
    torch.testing.assert_close(block, (module.w * (module.w @ module.v).mean()).detach())


def stored(weight: Tensor) -> tuple[GraphModule, Node]:
    """A graph that only reads a buffer."""
    gm = GraphModule(nn.Module(), torch.fx.Graph())
    gm.register_buffer("w", weight)
    node = gm.graph.get_attr("w")
    node.meta["val"] = weight
    return gm, node


@settings(max_examples=20, deadline=None)
@given(
    n=st.integers(1, 7),
    k=st.integers(1, 9),
    scale=st.floats(2**-10, 2**10, width=32),
    seed=st.integers(0, 99),
)
def test_ternary_values_give_their_codes_back(n: int, k: int, scale: float, seed: int) -> None:
    torch.manual_seed(seed)
    codes = torch.randint(-1, 2, (n, k)).to(torch.int8)
    found = fold(*stored(codes.float() * torch.tensor(scale)))
    assert found is not None
    assert torch.equal(found[0], codes)
    assert found[1].item() == (scale if codes.any() else 0.0)


def test_more_than_three_values_are_not_ternary() -> None:
    assert fold(*stored(torch.tensor([[1.0, -1.0], [0.0, 0.5]]))) is None


def test_random_calls_are_no_constants() -> None:
    graph = torch.fx.Graph()
    graph.call_function(aten.rand.default, ([3],))
    counted = graph.call_function(aten.arange.default, (3,))
    assert constants.constant_nodes(graph) == {counted}


class _Bounds(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.bounds, self.gain = nn.Parameter(torch.randn(3, 4)), nn.Parameter(torch.ones(4))
        self.gain.data = self.gain.data.bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        share = self.bounds.softmax(0)
        return x + (share.cumsum(0) - share[0])[2] + self.gain


def test_parameters_alone_become_one_buffer() -> None:
    module = _Bounds()
    gm = FoldConstants()(Canonicalize()(trace(module, (torch.zeros(2, 4),))))
    assert dict(gm.named_parameters()) == {}
    assert {b.dtype for b in gm.buffers()} == {torch.float32}
    share = module.bounds.detach().softmax(0)
    expected = share[1] + share[2] + 1
    # cumsum and subtraction round differently from a sum of two.
    torch.testing.assert_close(gm(torch.zeros(1, 4))[0], expected, rtol=1e-5, atol=1e-6)


def test_slices_without_all_arguments() -> None:
    x = torch.arange(10.0).reshape(2, 5)
    for arguments in ((1,), (1, 2), (1, 1, 4), (1, -2)):
        gm = Canonicalize()(traced(lambda a, rest=arguments: aten.slice.Tensor(a, *rest) + 1, x))
        assert torch.equal(gm(x), aten.slice.Tensor(x, *arguments) + 1)


def test_reductions_of_scalars() -> None:
    x = torch.arange(6.0).reshape(2, 3)
    gm = Canonicalize()(traced(lambda a: a * a.sum().amax(0), x))
    assert torch.equal(gm(x), x * 15)


def test_large_tensors_are_not_copied() -> None:
    gm = FoldConstants(max_elements=2)(trace(_Bounds(), (torch.zeros(2, 4),)))
    assert len(dict(gm.named_parameters())) == 2
