"""Each ATen spelling that an op file names lowers to calls that compute the same."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from special_values import SPECIAL
from torch import Tensor, nn

from mmfree_compiler.ops import OPS
from mmfree_compiler.passes.lower_pointwise import LowerPointwise
from mmfree_compiler.trace import trace

WIDTH = 5
SPELLINGS = [spelling for op in OPS.values() for spelling in op.aten]
TABLE = {op.overload for op in OPS.values()}


class Call(nn.Module):
    """An ATen call whose tensors are rows or constants, and whose numbers are 0.25, 0.5, ..."""

    def __init__(self, overload: Any, constants: tuple[int, ...], shape: tuple[int, ...]) -> None:
        super().__init__()
        self.overload, self.constants = overload, constants
        random = torch.Generator().manual_seed(0)
        self.register_buffer("constant", torch.randn(shape, generator=random))
        self.forms = [str(a.type) for a in overload._schema.arguments if not a.kwarg_only]

    def forward(self, *rows: Tensor) -> Tensor:
        arguments: list[Any] = []
        for k, form in enumerate(self.forms):
            tensor = self.constant if k in self.constants else rows[k]
            arguments.append(tensor if "Tensor" in form else 0.25 * k)
        out: Tensor = self.overload(*arguments)
        return out


def check(module: Call) -> None:
    random = torch.Generator().manual_seed(1)
    rows = tuple(torch.randn(2, 3, WIDTH, generator=random) for _ in module.forms)
    graph = LowerPointwise()(trace(module, rows))
    called = {node.target for node in graph.graph.nodes if node.op == "call_function"}
    assert called
    assert called <= TABLE
    special = SPECIAL.repeat(WIDTH).view(1, -1, WIDTH)  # each number in every column
    for x in (rows, (special, *(special.flip(1) for _ in rows[1:]))):
        torch.testing.assert_close(graph(*x), module(*x), rtol=1e-5, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("spelling", SPELLINGS, ids=str)
def test_rows(spelling: Any) -> None:
    check(Call(spelling, (), (WIDTH,)))


def _tensors(spelling: Any) -> int:
    return sum("Tensor" in str(argument.type) for argument in spelling._schema.arguments)


@pytest.mark.parametrize("shape", [(1,), (WIDTH,)], ids=["one", "row"])
@pytest.mark.parametrize("spelling", [s for s in SPELLINGS if _tensors(s) > 1], ids=str)
def test_constants_last(spelling: Any, shape: tuple[int, ...]) -> None:
    check(Call(spelling, (1, 2), shape))


@pytest.mark.parametrize("shape", [(1,), (WIDTH,)], ids=["one", "row"])
@pytest.mark.parametrize("spelling", [s for s in SPELLINGS if _tensors(s) == 2], ids=str)
def test_a_constant_first(spelling: Any, shape: tuple[int, ...]) -> None:
    check(Call(spelling, (0,), shape))


def test_rsub_with_a_factor() -> None:
    """`2 - 3 * x`: the factor is its third argument, not a keyword."""
    x = torch.randn(2, 3, WIDTH)

    class Rsub(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return torch.rsub(x, 2, alpha=3)

    graph = LowerPointwise()(trace(Rsub(), (x,)))
    torch.testing.assert_close(graph(x), 2 - 3 * x)


def test_a_constant_over_tiny_numbers() -> None:
    """The quotient is finite where 1 / x is not."""

    class Quotient(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.constant = torch.tensor([1e-10, 0.0, 1e-3, 1e-20, -0.0])

        def forward(self, x: Tensor) -> Tensor:
            return torch.div(self.constant, x)

    x = torch.tensor([[[1e-40, 1e-40, -1e-40, 1e-45, 1e-39]]])
    graph = LowerPointwise()(trace(Quotient(), (x,)))
    assert torch.equal(graph(x), Quotient()(x))
    assert graph(x).isfinite().all()
