"""Pointwise `tanh`."""

from __future__ import annotations

import torch
from torch import Tensor

from mmfree_compiler.ops.register import op
from mmfree_compiler.ops.spelling import aten, direct


@op("pointwise", aten={aten.tanh.default: direct})
def tanh(x: Tensor) -> Tensor:
    """`tanh(x)`."""
    return torch.tanh(x.float())
