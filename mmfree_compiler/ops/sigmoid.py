"""Pointwise `sigmoid`."""

from __future__ import annotations

from torch import Tensor

from mmfree_compiler.ops.exp import exp
from mmfree_compiler.ops.register import op
from mmfree_compiler.ops.spelling import aten, direct


@op("pointwise", aten={aten.sigmoid.default: direct})
def sigmoid(x: Tensor) -> Tensor:
    """`1 / (1 + e^-x)`."""
    return 1 / (1 + exp(-x.float()))
