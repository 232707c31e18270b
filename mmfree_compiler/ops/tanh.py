"""Pointwise `tanh`."""

from __future__ import annotations

import torch
from torch import Tensor

from mmfree_compiler import elementary as e
from mmfree_compiler.ops.exp import exp, polynomial
from mmfree_compiler.ops.register import op
from mmfree_compiler.ops.spelling import aten, direct


@op("pointwise", aten={aten.tanh.default: direct})
def tanh(x: Tensor) -> Tensor:
    """`tanh(x)`: an odd polynomial near zero, else `1 - 2 / (e^2|x| + 1)`; with the sign of x."""
    x = x.float()
    z, size = x * x, x.abs()
    near = x + x * (z * polynomial(z, e.TANH))
    far = 1 - 2 / (exp(size + size) + 1)
    return torch.where(size < e.TANH_NEAR, near, far).copysign(x)
