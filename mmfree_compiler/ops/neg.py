"""Pointwise `neg`."""

from __future__ import annotations

import torch
from torch import Tensor

from mmfree_compiler.ops.register import op
from mmfree_compiler.ops.spelling import aten, direct


@op("pointwise", aten={aten.neg.default: direct})
def neg(x: Tensor) -> Tensor:
    """`-x`."""
    return torch.neg(x.float())
