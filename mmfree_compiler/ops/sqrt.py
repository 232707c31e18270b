"""Pointwise `sqrt`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

from mmfree_compiler.ops.register import op
from mmfree_compiler.ops.spelling import Builder, Operand, aten, direct


def _rsqrt(build: Builder, x: Operand) -> Node | None:
    return build("reciprocal", build("sqrt", x))


@op("pointwise", aten={aten.sqrt.default: direct, aten.rsqrt.default: _rsqrt})
def sqrt(x: Tensor) -> Tensor:
    """`x^0.5`."""
    return torch.sqrt(x.float())
