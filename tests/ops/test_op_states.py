"""State rules: a sequence in parts, its state carried, is the sequence at once."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mmfree_compiler.ops import OPS

SCANS = [name for name, op in OPS.items() if op.kind == "scan"]
Arguments = list[Tensor | None]


def _mlgru(x: Tensor, random: torch.Generator) -> Arguments:
    return [x, torch.rand(x.shape, generator=random)]


def _conv(x: Tensor, random: torch.Generator) -> Arguments:
    width, taps = x.shape[-1], int(torch.randint(1, 5, (), generator=random))
    return [x, torch.randn(width, taps, generator=random), torch.randn(width, generator=random)]


# The arguments of a call but for the state, of rows and a source of random numbers.
ARGUMENTS: dict[str, Callable[[Tensor, torch.Generator], Arguments]] = {
    "mlgru_scan": _mlgru,
    "short_conv": _conv,
}


@pytest.mark.parametrize("name", SCANS)
@given(
    batch=st.integers(1, 3),
    parts=st.lists(st.integers(1, 6), min_size=1, max_size=4),
    width=st.integers(1, 5),
    seed=st.integers(0, 2**32),
)
def test_parts_of_a_sequence(
    name: str, batch: int, parts: list[int], width: int, seed: int
) -> None:
    op = OPS[name]
    assert op.state is not None
    random = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, sum(parts), width, generator=random)
    arguments = ARGUMENTS[name](x, random)
    shapes = [None if a is None else a.shape for a in arguments]
    state = start = torch.zeros(batch, *op.state.shape(*shapes, None))
    outputs = []
    for begin, count in zip(torch.tensor([0, *parts]).cumsum(0), parts, strict=False):
        part = [_rows(a, x, slice(begin, begin + count)) for a in arguments]
        outputs.append(op.overload(*part, state))
        state = op.state.after(outputs[-1], *part, state)
        assert state.shape == start.shape
    whole = op.overload(*arguments, start)
    assert torch.equal(torch.cat(outputs, dim=1), whole)
    assert torch.equal(state, op.state.after(whole, *arguments, start))
    assert torch.equal(whole, op.overload(*arguments, None))  # a sequence begins with zeros


def _rows(argument: Tensor | None, like: Tensor, at: slice) -> Tensor | None:
    is_row = argument is not None and argument.shape[:2] == like.shape[:2] and argument.dim() == 3
    return argument[:, at] if argument is not None and is_row else argument
