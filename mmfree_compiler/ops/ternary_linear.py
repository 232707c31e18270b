"""Linear `ternary_linear`: codes times a ternary weight."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmfree_compiler.ops.register import op


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
    bias (N,).
    fp32 holds the sum exactly for K <= 65536 (numerics 5); float64 is used to hold it for any K.
    """
    total = F.linear(codes.double(), weight.double()).float()
    out = total * (scale * weight_scale)
    return out if bias is None else out + bias
