"""Pointwise `sub`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

from mmfree_compiler.ops.register import op
from mmfree_compiler.ops.spelling import Builder, Operand, aten


def _sub(build: Builder, x: Operand, y: Operand) -> Node | None:
    """A constant minus a row becomes `-y + x`: ops take a constant as second operand only."""
    return build("add", build("neg", y), x) if build.is_constant(x) else build("sub", x, y)


def _rsub(build: Builder, x: Operand, y: Operand, alpha: float = 1) -> Node | None:
    """`y - alpha * x`."""
    return _sub(build, y, x if alpha == 1 else build("mul", x, alpha))


@op(
    "pointwise",
    aten={aten.sub.Tensor: _sub, aten.rsub.Scalar: _rsub, aten.rsub.Tensor: _rsub},
)
def sub(x: Tensor, y: Tensor) -> Tensor:
    """`x - y`."""
    return torch.sub(x.float(), y.float())
