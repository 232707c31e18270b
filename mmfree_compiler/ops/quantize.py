"""Row op `quantize`: fp32 rows to int8 codes."""

from __future__ import annotations

import torch
from torch import Tensor

from mmfree_compiler.ops.register import op


def codes_like(x: Tensor) -> list[Tensor]:
    """The shape rule of codes and their scale: (..., K) int8 and (..., 1) fp32."""
    scale = x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)
    return [torch.empty_like(x, dtype=torch.int8), scale]


@op("row", lambda x, quant_eps: codes_like(x))
def quantize(x: Tensor, quant_eps: float) -> list[Tensor]:
    """Per-token absmax int8: [codes (..., K) int8, scale (..., 1) fp32], `x ~ codes * scale`.

    With `a = 127 / max(max|x|, quant_eps)`: codes are `clamp(round_half_even(x * a), -128, 127)`,
    the scale is `1 / a`. Codes of a row that holds NaN or infinity are 0, and its scale is NaN.
    """
    absmax = x.abs().amax(-1, keepdim=True).clamp(min=quant_eps)
    absmax = absmax.where(absmax.isfinite(), torch.nan)
    codes = (x * (127 / absmax)).round().clamp(-128, 127).nan_to_num()
    return [codes.to(torch.int8), absmax / 127]
