"""Pointwise `exp`."""

from __future__ import annotations

import torch
from torch import Tensor

from mmfree_compiler import elementary as e
from mmfree_compiler.ops.fixed_point import power_of_two
from mmfree_compiler.ops.register import op
from mmfree_compiler.ops.spelling import aten, direct


@op("pointwise", aten={aten.exp.default: direct})
def exp(x: Tensor) -> Tensor:
    """`e^x = 2^n * e^r` with `n = round(x / ln 2)`, in the steps of docs/arithmetic.md."""
    x = x.float().clamp(e.EXP_LEAST, e.EXP_MOST)
    n = torch.round(x * e.LOG2_E)
    r = x - n * e.LN2_HIGH - n * e.LN2_LOW
    mantissa = polynomial(r, e.EXP) * (r * r) + r + 1
    exponent = n.nan_to_num().int()  # NaN stays in the mantissa
    half = exponent >> 1
    return mantissa * power_of_two(exponent - half) * power_of_two(half)


def polynomial(x: Tensor, coefficients: tuple[float, ...]) -> Tensor:
    """By Horner's rule, each product and each sum rounded; the highest power comes first."""
    total = torch.full_like(x, coefficients[0])
    for coefficient in coefficients[1:]:
        total = total * x + coefficient
    return total
