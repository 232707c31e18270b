"""The references against torch at special values, and against the true values elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from every_float import TRUE, measure
from special_values import FINITE, SPECIAL, UNARY, Rows, assert_same_bits, bit_patterns, pairs
from torch import Tensor

from mmfree_compiler.models.modules import BitLinear, RMSNorm
from mmfree_compiler.ops import OPS

# Where this project's arithmetic is its own: see docs/arithmetic.md, "Elementary functions".
ULP = {"exp": 2, "sigmoid": 3, "silu": 5, "tanh": 2}
OWN: dict[str, Callable[[Tensor], Tensor]] = {
    "exp": torch.exp,
    "sigmoid": torch.sigmoid,
    "silu": F.silu,
    "tanh": torch.tanh,
}
NAN, INF = float("nan"), float("inf")


def reference(name: str) -> Any:
    return OPS[name].reference


@pytest.mark.parametrize("name", [name for name in UNARY if name not in {*OWN, "identity", "sqrt"}])
def test_torchs_own_bits(name: str) -> None:
    x = torch.cat([SPECIAL, bit_patterns(100_000)])
    assert_same_bits(reference(name)(x), getattr(torch, name)(x), name, x)


def test_square_roots_are_rounded_once() -> None:
    x = torch.cat([SPECIAL, bit_patterns(100_000)])
    with np.errstate(invalid="ignore"):
        assert_same_bits(reference("sqrt")(x), torch.from_numpy(np.sqrt(x.numpy())), "sqrt", x)


@pytest.mark.parametrize("name", ["add", "sub", "mul", "div"])
def test_torchs_own_bits_of_two_operands(name: str) -> None:
    x, y = pairs(37)
    assert_same_bits(reference(name)(x, y), getattr(torch, name)(x, y), name, x, y)


@pytest.mark.parametrize("name", OWN)
def test_elementary_functions_are_torchs_at_special_values(name: str) -> None:
    x = torch.cat([SPECIAL, bit_patterns(100_000)])
    got, expected = reference(name)(x), OWN[name](x)
    special = ~expected.isfinite() | (expected == 0) | (expected.abs() == 1)
    assert torch.equal(got.isnan(), expected.isnan())
    assert torch.equal(got.isinf(), expected.isinf())
    assert torch.equal(got.signbit()[~expected.isnan()], expected.signbit()[~expected.isnan()])
    # torch is within an ulp of the true value; twice as far as both is a wrong result.
    with np.errstate(over="ignore"):  # at the largest number
        step = torch.from_numpy(np.spacing(expected.abs().numpy())) * (2 * ULP[name] + 2)
    near = (got - expected).abs() <= torch.where(special, 2.0**-23, step)
    assert (near | (got == expected) | got.isnan()).all()


def test_elementary_functions_on_a_sample_of_all_numbers() -> None:
    """Every 49,999th; `every_float.py` takes them all."""
    with np.errstate(over="ignore", under="ignore"):
        found, asymmetry = measure(49_999)
    assert {name: f.ulp for name, f in found.items() if f.ulp > ULP[name]} == {}
    assert {name for name in TRUE if found[name].falls} == {"silu"}  # which has a least value
    assert asymmetry <= 2


@pytest.mark.parametrize(
    ("x", "y", "most", "least"),
    [
        (0.0, -0.0, 0.0, -0.0),
        (-0.0, 0.0, 0.0, -0.0),
        (-0.0, -0.0, -0.0, -0.0),
        (NAN, 1.0, NAN, NAN),
        (1.0, NAN, NAN, NAN),
        (-INF, INF, INF, -INF),
        (1e-45, -0.0, 1e-45, -0.0),
    ],
)
def test_the_larger_and_the_smaller(x: float, y: float, most: float, least: float) -> None:
    a, b = torch.tensor([x]), torch.tensor([y])
    assert_same_bits(reference("maximum")(a, b), torch.tensor([most]), "maximum", a, b)
    assert_same_bits(reference("minimum")(a, b), torch.tensor([least]), "minimum", a, b)


def test_maximum_and_minimum_are_torchs_but_for_zeros() -> None:
    x, y = pairs(37)
    zeros = (x == 0) & (y == 0)
    for name in ("maximum", "minimum"):
        got, expected = reference(name)(x, y), getattr(torch, name)(x, y)
        assert_same_bits(got[~zeros], expected[~zeros], name, x[~zeros], y[~zeros])


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_rows_that_are_not_finite(bad: float) -> None:
    """NaN everywhere in the row, and nowhere else; codes are 0."""
    x = torch.randn(4, 24, generator=torch.Generator().manual_seed(0))
    module, h = Rows(24), torch.ones(4, 24)
    before = module(x, h)
    x[2, 5] = bad
    for got, fine in zip(module(x, h), before, strict=True):
        assert got[2].isnan().all()
        assert torch.equal(got[[0, 1, 3]], fine[[0, 1, 3]])
    codes, _ = reference("quantize")(x, 1e-5)
    assert not codes[2].any()


@pytest.mark.parametrize("bad", [NAN, INF])
def test_layers_in_torch_do_the_same(bad: float) -> None:
    layer, x = BitLinear(24, 8), torch.ones(3, 24)
    x[1, 5] = bad
    assert layer(x).isnan().all(-1).tolist() == [False, True, False]


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_layer_norm_in_torch_does_the_same(bad: float) -> None:
    x = torch.randn(3, 24, generator=torch.Generator().manual_seed(0))
    x[1, 5] = bad
    for centered in (reference("center")(x), F.layer_norm(x, (24,))):
        assert centered.isnan().all(-1).tolist() == [False, True, False]


def test_center_is_exact_far_from_zero() -> None:
    """Integers: the mean and the deviations are exact, and so is what is left of the mean."""
    deviations = torch.tensor([-3.0, 1.0, -1.0, 3.0])
    for offset in (0.0, 7.0, 1e4, -1e6, 2.0**23):
        assert torch.equal(reference("center")(deviations + offset), deviations)
    huge = torch.tensor([3e38, 3e38, 3e38, 2e38])  # whose sum overflows
    expected = torch.tensor([0.25e38, 0.25e38, 0.25e38, -0.75e38])
    torch.testing.assert_close(reference("center")(huge), expected, rtol=1e-6, atol=0)


@pytest.mark.parametrize("offset", [0.0, 10.0, 1e3, 1e5])
def test_layer_norm_is_nearer_to_the_true_value_than_torchs(offset: float) -> None:
    x = torch.randn(50, 37, generator=torch.Generator().manual_seed(0)) + offset
    true = F.layer_norm(x.double(), (37,))
    ours = reference("rms_norm")(reference("center")(x), torch.ones(37), 1e-5)
    assert (ours - true).abs().max() < 1e-6
    if offset:
        assert (ours - true).abs().max() < (F.layer_norm(x, (37,)) - true).abs().max()


def test_rows_of_huge_finite_values() -> None:
    """They are not taken for infinite ones; where squares overflow, a norm is 0, as in torch."""
    x = torch.outer(FINITE[FINITE.abs() > 1e18], torch.linspace(0.5, 1, 24))
    codes, scale = reference("quantize")(x, 1e-5)
    assert scale.isfinite().all()
    assert (codes.abs().amax(-1) == 127).all()
    norm = RMSNorm(24)
    assert torch.equal(reference("rms_norm")(x, norm.weight, norm.eps), norm(x))
