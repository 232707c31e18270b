"""Calls of a module that is not a language model: leading dimensions, inputs, bad input."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from fake_launcher import WIDTH, module_session

from mmfree_compiler.errors import InputError


def recurrence(x: Any) -> Any:
    """What FakeLauncher computes for a module of one input: (..., T, D)."""
    out, h = np.empty_like(x), np.zeros_like(x[..., 0, :])
    for t in range(x.shape[-2]):
        out[..., t, :], h = x[..., t, :] + h, h / 2 + x[..., t, :]
    return out


@pytest.mark.parametrize("shape", [(5,), (2, 5), (2, 3, 5), (1, 1)])
def test_module_leading_dimensions(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal((*shape, WIDTH)).astype(np.float32)
    session = module_session()
    for _ in range(2):  # the state begins at zero each time
        assert np.array_equal(session(x), recurrence(x))
    assert np.array_equal(session(torch.tensor(x)).numpy(), recurrence(x))


def test_module_one_row() -> None:
    x = np.ones(WIDTH, np.float32)
    assert np.array_equal(module_session()(x), x)


def test_module_of_several_inputs_and_outputs() -> None:
    session = module_session(inputs=("a", "b"), outputs=("y", "z"))
    x = torch.randn(2, WIDTH, requires_grad=True)
    y, z = session(x, torch.ones(2, WIDTH))
    assert torch.equal(y, z)
    assert torch.equal(y[0], x[0].detach() + 1)


def test_module_rows_are_padded_only_where_needed() -> None:
    session = module_session(width=16)
    wide = np.ones((2, 16), np.float32)
    assert session(wide).shape == (2, 16)
    assert session(wide[:, ::-1].astype(np.float64)).shape == (2, 16)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("number", [1e300, 1e-300])
def test_numbers_beyond_float32_round_as_in_torch(number: float) -> None:
    x = np.full((1, WIDTH), number)
    with np.errstate(all="raise"):
        assert np.array_equal(module_session()(x), torch.tensor(x).float().numpy())


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((), "0 given.*a, b"),
        ((np.ones((2, WIDTH)),), "1 given"),
        ((np.ones((2, 3)), np.ones((2, WIDTH))), "a: has shape"),
        ((np.ones((2, WIDTH)), np.ones((3, WIDTH))), "different leading"),
        ((np.ones((0, WIDTH)), np.ones((0, WIDTH))), "a: is empty"),
        ((np.ones((2, WIDTH), complex), np.ones((2, WIDTH))), "complex"),
        ((1.0, 2.0), "a: has shape"),
    ],
    ids=["none", "one", "width", "leading", "empty", "complex", "scalars"],
)
def test_bad_module_inputs(inputs: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        module_session(inputs=("a", "b"))(*inputs)


def test_a_module_generates_nothing() -> None:
    with pytest.raises(
        InputError, match=r"is not a language model: it takes x \(\.\.\., 10\)\. Call"
    ):
        module_session().generate([1])
