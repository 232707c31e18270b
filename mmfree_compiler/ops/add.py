"""Pointwise `add`."""

from __future__ import annotations

import torch
from torch import Tensor

from mmfree_compiler.ops.register import op
from mmfree_compiler.ops.spelling import aten, commutative


@op("pointwise", aten={aten.add.Tensor: commutative})
def add(x: Tensor, y: Tensor) -> Tensor:
    """`x + y`."""
    return torch.add(x.float(), y.float())
