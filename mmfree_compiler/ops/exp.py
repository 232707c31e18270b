"""Pointwise `exp`."""

from __future__ import annotations

import torch
from torch import Tensor

from mmfree_compiler.ops.register import op
from mmfree_compiler.ops.spelling import aten, direct


@op("pointwise", aten={aten.exp.default: direct})
def exp(x: Tensor) -> Tensor:
    """`e^x`."""
    return torch.exp(x.float())
