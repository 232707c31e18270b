"""Row op `rms_norm`."""

from __future__ import annotations

import torch
from torch import Tensor

from mmfree_compiler.ops.register import like_first, op


@op("row", like_first)
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`x / sqrt(mean(x^2) + eps) * weight`."""
    return x / torch.sqrt(x.square().mean(-1, keepdim=True) + eps) * weight
