"""Pointwise `swiglu`: the gate of a gated linear unit."""

from __future__ import annotations

from torch import Tensor

from mmfree_compiler.ops.register import op
from mmfree_compiler.ops.silu import silu


@op("pointwise")
def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """`silu(gate) * up`."""
    return silu(gate) * up
