"""Pointwise `minimum`."""

from __future__ import annotations

import torch
from torch import Tensor

from mmfree_compiler.ops.register import op
from mmfree_compiler.ops.spelling import aten, commutative


@op(
    "pointwise",
    aten={aten.minimum.default: commutative, aten.clamp_max.default: commutative},
)
def minimum(x: Tensor, y: Tensor) -> Tensor:
    """`min(x, y)`."""
    return torch.minimum(x.float(), y.float())
