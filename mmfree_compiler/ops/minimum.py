"""Pointwise `minimum`."""

from __future__ import annotations

from torch import Tensor

from mmfree_compiler.ops.maximum import maximum
from mmfree_compiler.ops.register import op
from mmfree_compiler.ops.spelling import aten, commutative


@op(
    "pointwise",
    aten={aten.minimum.default: commutative, aten.clamp_max.default: commutative},
)
def minimum(x: Tensor, y: Tensor) -> Tensor:
    """`min(x, y)`: NaN if either is NaN, -0 of two zeros that differ in sign."""
    return -maximum(-x.float(), -y.float())
