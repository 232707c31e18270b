"""Row op `rms_norm`."""

from __future__ import annotations

from torch import Tensor

from mmfree_compiler.ops.register import like_first, op
from mmfree_compiler.ops.statistics import mean_square, rstd


@op("row", like_first)
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`(x * r) * weight`, `r = 1 / sqrt(mean(x^2) + eps)`; NaN if the row holds NaN or infinity."""
    return x * rstd(mean_square(x), eps) * weight
