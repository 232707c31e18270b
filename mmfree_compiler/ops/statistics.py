"""What norms and quantizers know of a row: sums in fixed point, and 1/rms (docs/arithmetic.md).

Sums are integers, which have no order: lanes, threads and pipelines may add as they like.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmfree_compiler.elementary import FIXED_BITS
from mmfree_compiler.ops.fixed_point import exponent, fixed, power_of_two
from mmfree_compiler.ops.sqrt import sqrt


def mean_square(x: Tensor) -> Tensor:
    """The mean of a row's squares: (..., K) -> (..., 1); NaN if the row holds NaN or infinity."""
    e, down = _scale(x)
    total = fixed(x, e).square().sum(-1, keepdim=True)
    return total.float() * down * down / x.shape[-1]


def mean(x: Tensor) -> Tensor:
    """The mean of a row: (..., K) -> (..., 1); NaN if the row holds NaN or infinity."""
    e, down = _scale(x)
    total = fixed(x, e).sum(-1, keepdim=True)
    return total.float() / x.shape[-1] * down


def _scale(x: Tensor) -> tuple[Tensor, Tensor]:
    """A row's exponent, and what one unit of its fixed point is worth."""
    peak = x.abs().amax(-1, keepdim=True)
    e = exponent(peak)
    return e, power_of_two(e - FIXED_BITS).where(peak.isfinite(), torch.nan)


def rstd(mean_square: Tensor, eps: float) -> Tensor:
    """`1 / sqrt(mean_square + eps)`."""
    return 1 / sqrt(mean_square + eps)
