"""Pointwise `square`."""

from __future__ import annotations

import torch
from torch import Tensor

from mmfree_compiler.ops.register import op
from mmfree_compiler.ops.spelling import aten, direct


@op("pointwise", aten={aten.square.default: direct})
def square(x: Tensor) -> Tensor:
    """`x * x`."""
    return torch.square(x.float())
