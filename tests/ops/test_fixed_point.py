"""Values as integers: their exponents, their rounding, and sums that have no order."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from special_values import FINITE, bit_patterns
from torch import Tensor

from mmfree_compiler.elementary import FIXED_BITS, LEAST_EXPONENT
from mmfree_compiler.ops.fixed_point import exponent, fixed, power_of_two


def finite_numbers() -> Tensor:
    x = torch.cat([FINITE, bit_patterns(100_000)])
    return x[x.isfinite()]


def test_exponents_are_the_least_powers_of_two_above() -> None:
    sizes = finite_numbers().abs()
    e = exponent(sizes).double()
    assert (sizes.double() < 2.0**e).all()
    assert ((sizes.double() >= 2.0 ** (e - 1)) | (e == LEAST_EXPONENT)).all()
    known = torch.tensor([0.0, 1e-45, 0.5, 0.99999994, 1.0, 3.4028235e38, float("inf")])
    assert exponent(known).tolist() == [LEAST_EXPONENT, LEAST_EXPONENT, 0, 0, 1, 128, 129]


def test_powers_of_two() -> None:
    n = torch.arange(-126, 128, dtype=torch.int32)
    assert torch.equal(power_of_two(n).double(), 2.0 ** n.double())


def test_halves_go_to_even_integers() -> None:
    halves = torch.tensor([0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 2.0**22 + 0.5, 2.0**22 + 1.5, 0.0])
    integers = fixed(halves, torch.tensor(23, dtype=torch.int32))
    assert integers.tolist() == [0, 2, 2, 0, -2, -2, 2**22, 2**22 + 2, 0]


def test_integers_are_the_nearest_ones() -> None:
    x = finite_numbers()[:, None]
    e = exponent(x.abs())
    assert e.shape == x.shape
    expected = np.rint(x.double().numpy() * 2.0 ** (FIXED_BITS - e.double().numpy()))
    np.testing.assert_array_equal(fixed(x, e).numpy(), expected)
    assert fixed(x, e).abs().max() <= 2**FIXED_BITS


@pytest.mark.parametrize("width", [1, 15, 129, 5632])
def test_sums_of_rows_have_no_order(width: int) -> None:
    x = torch.randn(5, width, generator=torch.Generator().manual_seed(0))
    x[1], x[2], x[3] = 0, 1e-40, x[3] * 5e37
    e = exponent(x.abs().amax(-1, keepdim=True))
    sums = fixed(x, e).sum(-1, keepdim=True)
    assert torch.equal(sums, fixed(x.flip(-1), e).sum(-1, keepdim=True))
    exact = sums.double() * 2.0 ** (e.double() - FIXED_BITS)
    near = width * 2.0 ** (e.double() - FIXED_BITS - 1)
    assert ((exact - x.double().sum(-1, keepdim=True)).abs() <= near).all()


def test_a_value_just_below_a_power_of_two_rounds_up_to_it() -> None:
    x = torch.tensor([0.9999999, -0.99999994])
    assert fixed(x, torch.tensor(0, dtype=torch.int32)).tolist() == [8388607, -(2**FIXED_BITS)]


def test_integers_become_fp32_by_one_rounding() -> None:
    """In any number of elements: torch converts most of them as vectors."""
    total = np.random.default_rng(0).integers(-(2**62), 2**62, 10_007)
    total[::3] >>= 30
    np.testing.assert_array_equal(torch.from_numpy(total).float().numpy(), total.astype(np.float32))
