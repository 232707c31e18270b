"""Row op `gated_norm`: the MLGRU's output gate."""

from __future__ import annotations

from torch import Tensor

from mmfree_compiler.ops.register import like_first, op
from mmfree_compiler.ops.rms_norm import rms_norm
from mmfree_compiler.ops.silu import silu


@op("row", like_first)
def gated_norm(g: Tensor, h: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`rms_norm(g, weight, eps) * h * sigmoid(h)`: norm on g, swish on h (numerics 7)."""
    return rms_norm(g, weight, eps) * silu(h)
