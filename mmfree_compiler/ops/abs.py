"""Pointwise `abs`."""

from __future__ import annotations

import torch
from torch import Tensor

from mmfree_compiler.ops.register import op
from mmfree_compiler.ops.spelling import aten, direct


@op("pointwise", aten={aten.abs.default: direct})
def abs(x: Tensor) -> Tensor:  # noqa: A001 - the op's name
    """`|x|`."""
    return torch.abs(x.float())
