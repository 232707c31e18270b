"""Calls on constants: written steps, torch's values, and which calls are left to torch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from special_values import SPECIAL, assert_same_bits, bit_patterns
from torch import Tensor

from mmfree_compiler.ops import OPS
from mmfree_compiler.passes import sums
from mmfree_compiler.passes.arithmetic import apply, compute
from mmfree_compiler.passes.sums import REDUCTIONS

aten = torch.ops.aten
NAN, INF = float("nan"), float("inf")


def value(target: Any, *args: Any, **kwargs: Any) -> Tensor:
    result = compute(target, args, kwargs)
    assert isinstance(result, Tensor)
    return result


def matrix(dtype: torch.dtype = torch.float32) -> Tensor:
    return (torch.randn(301, 1000, generator=torch.Generator().manual_seed(0)) - 0.2).to(dtype)


def integers(x: Tensor) -> tuple[int, int]:
    """The sum of the values as integers, and the e of their grid, in Python's numbers."""
    e = max(-103, int(np.frexp(x.abs().max().item())[1]))
    return int(np.rint(np.ldexp(x.double().numpy(), 23 - e)).astype(np.int64).sum()), e


# --- sums ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("scale", [1.0, 1e-30, 1e-38, 1e-45, 1e34, 0.0])
@pytest.mark.parametrize("block", [7, 1 << 17])
def test_sums_and_means_are_of_integers(
    scale: float, block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sums, "BLOCK", block)
    x = matrix()[:9] * scale
    total, e = integers(x)
    unit = np.ldexp(np.float32(1), e - 23)
    assert value(aten.sum.default, x).item() == np.float32(total) * unit
    mean = np.float32(total) / np.float32(x.numel()) * unit
    assert value(aten.mean.default, x).item() == mean
    assert value(aten.mean.dim, x, [0, 1]).item() == mean
    assert value(aten.mean.dim, x, [-1, 0], True).tolist() == [[mean]]


def test_what_overflows_in_some_order_is_not_finite() -> None:
    x = torch.full((100, 100), 2.0**127)
    for target in (aten.mean.default, aten.sum.default):
        assert value(target, x).item() == INF
        assert value(target, -x).item() == -INF
        assert value(target, torch.cat([x, -x])).isnan()
    for along in (aten.mean.dim, aten.sum.dim_IntList):
        assert value(along, x, [0, 1]).item() == INF
        assert value(along, torch.cat([x, -x]), [0]).isnan().all()


@pytest.mark.parametrize("target", [aten.mean.dim, aten.sum.dim_IntList])
@pytest.mark.parametrize("dims", [[0], [-1], [0, 1]])
def test_rows_are_summed_as_whole_matrices(target: Any, dims: list[int]) -> None:
    whole = {aten.mean.dim: aten.mean.default, aten.sum.dim_IntList: aten.sum.default}[target]
    x = matrix()[:5, :37].contiguous()
    found = value(target, x, dims)
    rows = {(0,): x.T, (-1,): x, (0, 1): x.reshape(1, -1)}[tuple(dims)]
    expected = torch.stack([value(whole, row.contiguous()) for row in rows])
    assert torch.equal(found, expected.reshape(found.shape))
    assert torch.equal(value(target, x, dims, True).flatten(), expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_floats_are_widened_and_their_sum_is_rounded(dtype: torch.dtype) -> None:
    x = matrix(dtype)[:3, :40].contiguous()
    for target in (aten.sum.default, aten.mean.default, aten.amax.default):
        assert value(target, x).dtype == dtype
        assert torch.equal(value(target, x), value(target, x.float()).to(dtype))
    wide = value(aten.sum.default, x, dtype=torch.float32)
    assert torch.equal(wide, value(aten.sum.default, x.float()))


@pytest.mark.parametrize("bad", [NAN, INF, -INF])
def test_sums_that_are_not_finite_are_torchs(bad: float) -> None:
    x = matrix()[:4, :8].contiguous()
    x[2, 3] = bad
    for target in (aten.sum.default, aten.mean.default):
        assert_same_bits(value(target, x), target(x), str(target))
    found = value(aten.sum.dim_IntList, x, [1])
    assert found.isfinite().tolist() == [True, True, False, True]
    assert_same_bits(found[2], x[2].sum(), "sum")


def test_fp64_integers_and_empty_tensors_are_torchs() -> None:
    x = matrix(torch.float64)[:3, :8].contiguous()
    torch.testing.assert_close(value(aten.mean.default, x), x.mean(), rtol=1e-15, atol=0)
    counts = torch.arange(12).reshape(3, 4)
    assert torch.equal(value(aten.sum.default, counts), counts.sum())
    empty = torch.empty(0, 3)
    assert value(aten.mean.default, empty).isnan()
    for target, args in ((aten.sum.dim_IntList, [1]), (aten.softmax.int, 0), (aten.cumsum, 0)):
        assert value(target, empty, args).numel() == 0


def test_blocks_are_read_twice_only() -> None:
    reads = []

    def blocks() -> list[Tensor]:
        reads.append(1)
        return [torch.ones(3), torch.ones(2)]

    assert REDUCTIONS[aten.sum.default](blocks) == 5
    assert len(reads) == 2


# --- in a written order -------------------------------------------------------------------------


def test_running_sums_are_rounded_one_by_one() -> None:
    x = matrix()[:50, :7].contiguous()
    total, rows = np.zeros(7, np.float32), []
    for row in x.numpy():
        total = total + row
        rows.append(total)
    np.testing.assert_array_equal(value(aten.cumsum.default, x, 0).numpy(), np.stack(rows))
    assert torch.equal(value(aten.cumsum.default, x.T, -1).T, value(aten.cumsum.default, x, 0))
    assert value(aten.cumsum.default, torch.tensor(2.5), 0).item() == 2.5


@pytest.mark.parametrize("dim", [0, -1])
def test_softmax_by_its_steps(dim: int) -> None:
    x = matrix()[:24, :16].contiguous() * 5
    powers = OPS["exp"].reference(x - x.amax(dim, keepdim=True)).movedim(dim, 0)
    total = powers[0]
    for row in powers[1:]:
        total = total + row
    expected = (powers / total).movedim(0, dim)
    assert torch.equal(value(aten.softmax.int, x, dim), expected)
    assert torch.equal(value(aten._softmax.default, x, dim, False), expected)
    torch.testing.assert_close(expected, x.softmax(dim), rtol=1e-5, atol=0)
    narrow = value(aten.softmax.int, x.bfloat16(), dim, torch.float32)
    assert torch.equal(narrow, value(aten.softmax.int, x.bfloat16().float(), dim))
    assert value(aten.softmax.int, torch.tensor(3.0), dim).item() == 1


def test_softmax_of_infinities_is_torchs() -> None:
    x = torch.tensor([[0.0, -INF, 1.0], [-INF, -INF, -INF], [INF, 0.0, 0.0], [NAN, 0.0, 0.0]])
    found, expected = value(aten.softmax.int, x, 1), x.softmax(1)
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=0, equal_nan=True)


# --- pointwise ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["exp", "sigmoid", "silu", "sqrt", "tanh"])
def test_pointwise_ops_are_their_references(name: str) -> None:
    x = torch.cat([SPECIAL, bit_patterns(1000)])
    target = getattr(aten, name).default
    assert_same_bits(value(target, x), OPS[name].reference(x), name, x)
    half = x.half()
    assert_same_bits(value(target, half).float(), OPS[name].reference(half).half().float(), name)


def test_spellings_are_those_that_a_backend_gets() -> None:
    x = bit_patterns(1000).abs()
    expected = 1 / OPS["sqrt"].reference(x)
    assert_same_bits(value(aten.rsqrt.default, x), expected, "rsqrt", x)
    zeros = torch.tensor([-0.0, 0.0] * 20)
    assert not value(aten.clamp.default, zeros, 0.0).signbit().any()
    assert torch.equal(value(aten.clamp.default, matrix(), -1, 1), matrix().clamp(-1, 1))


@pytest.mark.parametrize("name", ["log", "erf", "gelu", "cos", "expm1", "softplus"])
def test_other_functions_are_computed_in_fp64(name: str) -> None:
    x = matrix()[:3].abs()
    target = getattr(aten, name).default
    assert torch.equal(value(target, x), target(x.double()).float())


def test_numbers_stay_those_of_fp32() -> None:
    x = torch.tensor([0.1, 0.2, 0.3])
    assert value(aten.eq.Scalar, x, 0.1).tolist() == [True, False, False]
    assert value(aten.pow.Scalar, 10000.0, x).dtype == torch.float32
    expected = (x.double() + torch.tensor(0.3).double() * x.double()).float()
    assert torch.equal(value(aten.add.Tensor, x, x, alpha=0.3), expected)


@pytest.mark.parametrize(
    ("target", "args"),
    [
        (aten.permute.default, (matrix(), [1, 0])),
        (aten.mm.default, (matrix(), matrix().T)),
        (aten.exp.default, (torch.arange(5),)),
        (aten.relu.default, (torch.arange(-2, 3),)),
        (aten.exp.default, (matrix(torch.float64),)),
        (aten.maximum.default, (matrix(), matrix(torch.bfloat16))),
    ],
)
def test_other_calls_are_torchs(target: Any, args: tuple[Any, ...]) -> None:
    found = value(target, *args)
    assert torch.equal(found, target(*args))
    assert found.dtype == target(*args).dtype


def test_calls_in_place_are_made_once() -> None:
    x = torch.tensor([2.0])
    apply(aten.mul_.Tensor, (x, 3.0), {})
    apply(aten.sqrt_.default, (x,), {})
    assert x.item() == OPS["sqrt"].reference(torch.tensor(6.0)).item()


@pytest.mark.parametrize(
    "call",
    [
        lambda w: apply(aten.mean.default, (w,), {}),
        lambda w: apply(aten.mean.dim, (w, [0, 1], True), {}),
        lambda w: apply(aten.std.correction, (w,), {}),
        lambda w: apply(aten.linalg_vector_norm.default, (w,), {}),
    ],
)
def test_a_module_that_runs_gets_the_same_numbers(call: Callable[[Tensor], Tensor]) -> None:
    """Of every order of its weight, which torch's own kernels do not give."""
    w = matrix()
    orders = [w, w.flip(0), w.flip(1), w.T.contiguous()]
    assert len({call(order).item() for order in orders}) == 1


def test_rows_of_a_module_that_runs_are_torchs() -> None:
    x = matrix()
    for target, args in ((aten.exp.default, (x,)), (aten.mean.dim, (x, [-1], True))):
        assert torch.equal(apply(target, args, {}), target(*args))
