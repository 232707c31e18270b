"""Pointwise `silu`."""

from __future__ import annotations

from torch import Tensor

from mmfree_compiler.ops.register import op
from mmfree_compiler.ops.sigmoid import sigmoid
from mmfree_compiler.ops.spelling import aten, direct


@op("pointwise", aten={aten.silu.default: direct})
def silu(x: Tensor) -> Tensor:
    """`x * sigmoid(x)`."""
    return x.float() * sigmoid(x)
