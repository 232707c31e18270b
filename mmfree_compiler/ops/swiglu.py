"""Pointwise `swiglu`: the gate of a gated linear unit."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from mmfree_compiler.ops.register import op


@op("pointwise")
def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """`silu(gate) * up`."""
    return F.silu(gate) * up
