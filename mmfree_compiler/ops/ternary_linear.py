"""Linear `ternary_linear`: codes times a ternary weight."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmfree_compiler.ops.register import op

# fp32 holds every integer up to 2^24, and a code is at most 128 in magnitude: each partial sum of
# this many products is exact, in any order.
_FP32_MAX_K = 2**24 // 128


def _fake(
    codes: Tensor, scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None
) -> Tensor:
    return codes.new_empty((*codes.shape[:-1], weight.shape[0]), dtype=torch.float32)


@op("linear", _fake, roles={"weight": "ternary"})
def ternary_linear(
    codes: Tensor, scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None
) -> Tensor:
    """`sum_k codes_k * weight_nk` as an exact integer, times `scale * weight_scale`, plus bias.

    codes (..., K) int8, scale (..., 1), weight (N, K) int8 in {-1, 0, 1}, weight_scale (1,) fp32,
    bias (N,). The sum is taken in fp32 where that is exact (numerics 5), in float64 for a larger K.
    """
    total = _integer_sums(codes, weight).float()
    out = total * (scale * weight_scale)
    return out if bias is None else out + bias


def _integer_sums(codes: Tensor, weight: Tensor) -> Tensor:
    dtype = torch.float32 if weight.shape[1] <= _FP32_MAX_K else torch.float64
    with torch.autocast(codes.device.type, enabled=False):  # it would round fp32 sums to bfloat16
        return F.linear(codes.to(dtype), weight.to(dtype))
