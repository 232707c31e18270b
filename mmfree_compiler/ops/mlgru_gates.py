"""Pointwise `mlgru_gates`: the inputs of the MLGRU recurrence, made from its projections."""

from __future__ import annotations

from torch import Tensor

from mmfree_compiler.ops.register import like_first, op
from mmfree_compiler.ops.sigmoid import sigmoid
from mmfree_compiler.ops.silu import silu


def _fake(i: Tensor, f: Tensor, lower_bound: Tensor | None) -> list[Tensor]:
    return [like_first(i), like_first(i)]


@op("pointwise", _fake)
def mlgru_gates(i: Tensor, f: Tensor, lower_bound: Tensor | None) -> list[Tensor]:
    """[c, forget]: `forget = LB + (1-LB) * sigmoid(f)`, `c = silu(i) * (1-forget)` (numerics 7)."""
    forget = sigmoid(f)
    if lower_bound is not None:
        forget = lower_bound + (1 - lower_bound) * forget
    return [silu(i) * (1 - forget), forget]
