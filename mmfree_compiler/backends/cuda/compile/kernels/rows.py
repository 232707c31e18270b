"""Ops on a whole row, (BLOCK,) fp32 as in reductions.py, and so is what they return.

Its padding is 0, or NaN where the row is NaN. For `norm_quant` there are the parts that are its
own: the factors of codes.quantized.
"""

from __future__ import annotations

import triton
import triton.language as tl

from mmfree_compiler.backends.cuda.compile.kernels.fp32 import finite_or_nan
from mmfree_compiler.backends.cuda.compile.kernels.reductions import mean, rstd


@triton.jit
def rms_normed(
    x: tl.tensor, mean_square: tl.tensor, eps: tl.constexpr, weight: tl.tensor
) -> tl.tensor:
    """Op `rms_norm`: x and weight (BLOCK,), and the mean square of x."""
    return x * rstd(mean_square, eps) * weight


@triton.jit
def gated(
    g: tl.tensor, mean_square: tl.tensor, eps: tl.constexpr, weight: tl.tensor, gate: tl.tensor
) -> tl.tensor:
    """Op `gated_norm`: the norm of g times `gate`, silu(h)."""
    return rms_normed(g, mean_square, eps, weight) * gate


@triton.jit
def centered(x: tl.tensor, K: tl.constexpr) -> tl.tensor:
    """Op `center`: x (BLOCK,), no stack."""
    return _deviations(_deviations(x, K), K)


@triton.jit
def _deviations(x: tl.tensor, K: tl.constexpr) -> tl.tensor:
    return tl.where(tl.arange(0, x.shape[0]) < K, x - mean(x, K), 0.0)


@triton.jit
def inverse_of_one(mean_square: tl.tensor, eps: tl.constexpr) -> tl.tensor:
    """1/rms in `norm_quant` with one norm: `mean_square` is that of the row x."""
    return rstd(mean_square, eps)


@triton.jit
def inverse_of_both(
    before: tl.tensor, after: tl.tensor, outer_eps: tl.constexpr, inner_eps: tl.constexpr
) -> tl.tensor:
    """1/rms in `norm_quant` with a norm after a norm.

    `before` is the mean square of the row x, `after` that of x * outer: see ops/norm_quant.py.
    """
    outer = rstd(before, outer_eps)
    inner = rstd(finite_or_nan(outer * outer * after), inner_eps)
    return tl.where(outer == 0.0, outer, outer * inner)
