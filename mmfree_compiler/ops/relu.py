"""Pointwise `relu`."""

from __future__ import annotations

import torch
from torch import Tensor

from mmfree_compiler.ops.register import op
from mmfree_compiler.ops.spelling import aten, direct


@op("pointwise", aten={aten.relu.default: direct})
def relu(x: Tensor) -> Tensor:
    """`0 if x < 0 else x`: NaN and -0 stay, as in torch."""
    return torch.relu(x.float())
