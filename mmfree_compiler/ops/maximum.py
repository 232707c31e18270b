"""Pointwise `maximum`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

from mmfree_compiler.ops.register import op
from mmfree_compiler.ops.spelling import Builder, Operand, aten, commutative


def _clamp(build: Builder, x: Node, low: Operand = None, high: Operand = None) -> Node | None:
    """`min(max(x, low), high)`; None means no bound."""
    above = x if low is None else build("maximum", x, low)
    return above if high is None else build("minimum", above, high)


def _hardtanh(build: Builder, x: Node, low: float = -1.0, high: float = 1.0) -> Node | None:
    return _clamp(build, x, low, high)


@op(
    "pointwise",
    aten={
        aten.maximum.default: commutative,
        aten.clamp.default: _clamp,
        aten.clamp.Tensor: _clamp,
        aten.hardtanh.default: _hardtanh,
    },
)
def maximum(x: Tensor, y: Tensor) -> Tensor:
    """`max(x, y)`: NaN if either is NaN, +0 of two zeros that differ in sign."""
    x, y = x.float(), y.float()
    return torch.where((x == 0) & (y == 0), x + y, torch.maximum(x, y))
