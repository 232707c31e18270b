"""Row op `rms_norm`."""

from __future__ import annotations

import torch
from torch import Tensor

from mmfree_compiler.ops.register import like_first, op
from mmfree_compiler.ops.sqrt import sqrt


@op("row", like_first)
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`x / sqrt(mean(x^2) + eps) * weight`; a row that holds NaN or infinity becomes NaN."""
    rms = sqrt(x.square().mean(-1, keepdim=True) + eps)
    finite = x.isfinite().all(-1, keepdim=True)
    return x / rms.where(finite, torch.nan) * weight
