"""Row op `quantize`: fp32 rows to int8 codes."""

from __future__ import annotations

import torch
from torch import Tensor

from mmfree_compiler.elementary import CODE_MAX, LEAST_PEAK, codes_per_unit
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
    return quantize_scaled(x, torch.ones(()), quant_eps)


def quantize_scaled(v: Tensor, r: Tensor, quant_eps: float) -> list[Tensor]:
    """`quantize(v * r, quant_eps)` for rows v (..., K) and their factors r (..., 1), positive.

    The codes of a row whose absmax is not below `quant_eps` do not wait for r: it cancels.
    """
    peak = v.abs().amax(-1, keepdim=True).clamp(min=LEAST_PEAK)
    absmax = peak * r
    tiny, finite = absmax < quant_eps, absmax.isfinite()
    # CODE_MAX / peak would be CODE_MAX * (1 / peak), rounded twice.
    inverse = torch.where(
        tiny, r * codes_per_unit(quant_eps), torch.full_like(peak, CODE_MAX) / peak
    )
    codes = (v * inverse).round().clamp(-128, CODE_MAX).where(finite, 0).nan_to_num()
    scale = absmax.where(~tiny, quant_eps).where(finite, torch.nan) / CODE_MAX
    return [codes.to(torch.int8), scale]
