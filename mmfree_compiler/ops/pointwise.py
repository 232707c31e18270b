"""Ops whose column n needs column n of the operands, of the same token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmfree_compiler.ops.table import OPS, Op, like_first, op


def _broadcast(x: Tensor, y: Tensor) -> Tensor:
    return (x + y).float()


@op("pointwise", like_first)
def swiglu(gate: Tensor, up: Tensor) -> Tensor:
    """`silu(gate) * up`."""
    return F.silu(gate) * up


def _mlgru_gates_fake(i: Tensor, f: Tensor, lower_bound: Tensor | None) -> list[Tensor]:
    return [like_first(i), like_first(i)]


@op("pointwise", _mlgru_gates_fake)
def mlgru_gates(i: Tensor, f: Tensor, lower_bound: Tensor | None) -> list[Tensor]:
    """[c, forget]: `forget = LB + (1-LB) * sigmoid(f)`, `c = silu(i) * (1-forget)` (numerics 7)."""
    forget = torch.sigmoid(f)
    if lower_bound is not None:
        forget = lower_bound + (1 - lower_bound) * forget
    return [F.silu(i) * (1 - forget), forget]


POINTWISE_UNARY: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda x: x,
    "silu": F.silu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "relu": torch.relu,
    "exp": torch.exp,
    "neg": torch.neg,
    "abs": torch.abs,
    "sqrt": torch.sqrt,
    "square": torch.square,
    "reciprocal": torch.reciprocal,
}
# The second operand is a row of the same width or a constant of width 1 or `width`.
POINTWISE_BINARY: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "div": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
}


def _register_pointwise() -> None:
    for name, function in POINTWISE_UNARY.items():

        def unary(x: Tensor, function: Callable[[Tensor], Tensor] = function) -> Tensor:
            return function(x.float()).clone()

        _declare(name, "(Tensor x) -> Tensor", unary, like_first)
    for name, binary_function in POINTWISE_BINARY.items():

        def binary(
            x: Tensor, y: Tensor, function: Callable[[Tensor, Tensor], Tensor] = binary_function
        ) -> Tensor:
            return function(x.float(), y.float())

        _declare(name, "(Tensor x, Tensor y) -> Tensor", binary, _broadcast)


def _declare(
    name: str, schema: str, reference: Callable[..., Any], fake: Callable[..., Any]
) -> None:
    torch.library.custom_op(
        f"mmfree::{name}", reference, mutates_args=(), schema=schema
    ).register_fake(fake)
    OPS[name] = Op(name, "pointwise", reference, getattr(torch.ops.mmfree, name).default)


_register_pointwise()
