"""Compound `bit_linear`: a BitLinear layer's product, which `ternarize` splits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmfree_compiler.ops.quantize import quantize
from mmfree_compiler.ops.register import op


def _fake(x: Tensor, weight: Tensor, bias: Tensor | None, quant_eps: float) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]), dtype=torch.float32)


@op("compound", _fake)
def bit_linear(x: Tensor, weight: Tensor, bias: Tensor | None, quant_eps: float) -> Tensor:
    """Fake-quantized x times a dequantized ternary weight (N, K), plus bias (N,)."""
    codes, scale = quantize(x, quant_eps)
    return F.linear(codes * scale, weight.float(), bias)
