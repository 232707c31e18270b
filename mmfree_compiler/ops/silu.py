"""Pointwise `silu`."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mmfree_compiler.ops.register import op
from mmfree_compiler.ops.spelling import aten, direct


@op("pointwise", aten={aten.silu.default: direct})
def silu(x: Tensor) -> Tensor:
    """`x * sigmoid(x)`."""
    return F.silu(x.float())
