"""Pointwise `reciprocal`."""

from __future__ import annotations

import torch
from torch import Tensor

from mmfree_compiler.ops.register import op
from mmfree_compiler.ops.spelling import aten, direct


@op("pointwise", aten={aten.reciprocal.default: direct})
def reciprocal(x: Tensor) -> Tensor:
    """`1 / x`."""
    return torch.reciprocal(x.float())
