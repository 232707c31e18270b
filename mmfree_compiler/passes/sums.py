"""Sums, means and what is made of them, with the same bits on every machine.

docs/arithmetic.md, "Constants", has the steps. A last bit of mean|w| that depended on the threads
or on the CPU would carry some weights of a large model over their .5 edge.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmfree_compiler.elementary import FIXED_BITS
from mmfree_compiler.ops.exp import exp
from mmfree_compiler.ops.fixed_point import exponent, fixed, power_of_two

aten = torch.ops.aten

# What makes the blocks of a matrix anew at each call, since a sum reads it twice.
Blocks = Callable[[], Iterable[Tensor]]
FLOAT_MAX = torch.finfo(torch.float32).max
# Elements per block: a block's temporaries fit in a core's cache.
BLOCK = 1 << 17


def parts(x: Tensor) -> Iterator[Tensor]:
    """A tensor as blocks without dimensions."""
    yield from torch.split(x.reshape(-1), BLOCK)


def _max(blocks: Blocks) -> Tensor:
    return torch.stack([block.max() for block in blocks()]).max()


def _sum(blocks: Blocks) -> Tensor:
    found = _total(blocks)
    return (found.integer * found.unit).to(found.dtype)


def _mean(blocks: Blocks) -> Tensor:
    """Divided before it is scaled, so that nothing overflows on the way."""
    found = _total(blocks)
    return (found.integer / found.count * found.unit).to(found.dtype)


REDUCTIONS: dict[Any, Callable[[Blocks], Tensor]] = {
    aten.amax.default: _max,
    aten.max.default: _max,
    aten.mean.default: _mean,
    aten.sum.default: _sum,
}


def is_reduction(target: Any, x: Any, options: Any) -> bool:
    """Whether a call of `x`, and of keyword `options`, is in REDUCTIONS; not of integers."""
    is_float = isinstance(x, Tensor) and x.is_floating_point() and x.numel() > 0
    return target in REDUCTIONS and is_float and not options


@dataclass(frozen=True)
class _Total:
    """The sum of `count` values is `integer * unit`: an integer rounded to fp32, a power of two.

    Not finite where the sum of their magnitudes is not: in some order, torch's own sum overflows.
    """

    integer: Tensor
    unit: Tensor
    count: Tensor
    dtype: torch.dtype


def _total(blocks: Blocks) -> _Total:
    """Of fp64, and where a value is not finite, `integer` is torch's sum in fp64 and `unit` 1."""
    ends, count = [], 0
    for block in blocks():
        ends.append(torch.stack(torch.aminmax(block)))
        count += block.numel()
    peak = torch.cat(ends).abs().max()
    if peak.dtype == torch.float64 or not peak.isfinite():
        total = torch.stack([block.double().sum() for block in blocks()]).sum()
        return _Total(total, torch.tensor(1.0), torch.tensor(float(count)).double(), peak.dtype)
    e = exponent(peak.float())
    scale = power_of_two(FIXED_BITS - e)
    # In fp64, integers below 2^53 have no order either, and int64 would take twice the time.
    sums = [(block.float() * scale).round_().sum(dtype=torch.float64) for block in blocks()]
    integer = torch.tensor(sum(map(int, sums))).float()
    if float(peak) * count > FLOAT_MAX and _magnitude(blocks) > FLOAT_MAX:
        integer = integer * torch.inf
    return _Total(integer, power_of_two(e - FIXED_BITS), torch.tensor(float(count)), peak.dtype)


def _magnitude(blocks: Blocks) -> float:
    return sum(float(block.double().abs().sum()) for block in blocks())


def sum_along(
    x: Tensor, dims: Sequence[int] | None = None, keepdim: bool = False, **_: object
) -> Tensor:
    """The sum of fp32 values along dimensions, by the same steps; of all of them unless given."""
    return _along(x, dims, keepdim, mean=False)


def mean_along(
    x: Tensor, dims: Sequence[int] | None = None, keepdim: bool = False, **_: object
) -> Tensor:
    """The mean of fp32 values along dimensions, by the same steps; of all of them unless given."""
    return _along(x, dims, keepdim, mean=True)


def _along(x: Tensor, dims: Sequence[int] | None, keepdim: bool, mean: bool) -> Tensor:
    every = tuple(dims or range(x.dim()))
    peak = x.abs().amax(every, keepdim=True)
    e = exponent(peak)
    total = fixed(x, e).sum(every, keepdim=True).float()
    count = torch.tensor(x.numel() / total.numel() if mean else 1.0)
    exact = total / count * power_of_two(e - FIXED_BITS)
    magnitude = x.double().abs().sum(every, keepdim=True)
    exact = torch.where(magnitude > FLOAT_MAX, exact * torch.inf, exact)
    result = exact.where(peak.isfinite(), (x.double().sum(every, keepdim=True) / count).float())
    return result if keepdim else result.squeeze(every)


def cumsum(x: Tensor, dim: int, *_: object, **__: object) -> Tensor:
    """Running sums of fp32 values in order, each rounded."""
    with np.errstate(all="ignore"):
        sums = np.add.accumulate(np.atleast_1d(x.numpy(force=True)), axis=dim)
    return torch.from_numpy(sums).reshape(x.shape)


def softmax(x: Tensor, dim: int, *_: object, **__: object) -> Tensor:
    """`e^(x - max) / sum` of fp32 values: exp by its reference, the sum in order."""
    rows = x if x.dim() else x.reshape(1)
    powers = exp(rows - rows.amax(dim, keepdim=True))
    total = cumsum(powers, dim).narrow(dim, -1, 1)
    return (powers / total).reshape(x.shape)
