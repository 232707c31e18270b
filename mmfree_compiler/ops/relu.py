"""Pointwise `relu`."""

from __future__ import annotations

import torch
from torch import Tensor

from mmfree_compiler.ops.register import op
from mmfree_compiler.ops.spelling import aten, direct


@op("pointwise", aten={aten.relu.default: direct})
def relu(x: Tensor) -> Tensor:
    """`max(x, 0)`."""
    return torch.relu(x.float())
