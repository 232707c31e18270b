"""Pointwise `div`."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.fx import Node

from mmfree_compiler.ops.register import op
from mmfree_compiler.ops.spelling import Builder, Operand, aten


def _div(build: Builder, x: Operand, y: Operand) -> Node | None:
    """Ops take a constant as second operand only."""
    return build("rdiv", y, x) if build.is_constant(x) else build("div", x, y)


@op("pointwise", aten={aten.div.Tensor: _div})
def div(x: Tensor, y: Tensor) -> Tensor:
    """`x / y`."""
    return torch.div(x.float(), y.float())
