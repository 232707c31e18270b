"""Pointwise `rdiv`: what `div` becomes when its first operand is a constant."""

from __future__ import annotations

import torch
from torch import Tensor

from mmfree_compiler.ops.register import op


@op("pointwise")
def rdiv(x: Tensor, y: Tensor) -> Tensor:
    """`y / x`, rounded once: `1/x * y` would be infinite for small x."""
    return torch.div(y.float(), x.float())
