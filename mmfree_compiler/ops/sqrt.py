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
    """`x^0.5`, rounded once: torch's own in fp32 is off by an ulp for some values of long rows."""
    return torch.sqrt(x.double()).float()
