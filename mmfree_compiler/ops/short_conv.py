"""Scan `short_conv`: a depthwise causal convolution over a few tokens."""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
from torch import Tensor

from mmfree_compiler.ops.register import like_first, op
from mmfree_compiler.ops.table import StateRule


def _after(y: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor) -> Tensor:
    return torch.cat([state, x], dim=1)[:, -weight.shape[1] :]


_STATE = StateRule(shape=lambda x, weight, *_: (weight[1], x[-1]), after=_after)


@op("scan", like_first, roles={"weight": "taps"}, state=_STATE)
def short_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None = None
) -> Tensor:
    """Depthwise causal convolution: x (B, T, D), weight (D, k), state (B, k, D) the last k inputs.

    `y_t = sum_j weight_j * x_{t-k+1+j}` (numerics 10, without its silu), rounded after each product
    and each sum, oldest first. The state after it is the last k rows of the state followed by x.
    """
    time, taps = x.shape[1], weight.shape[1]
    before = x.new_zeros(x.shape[0], taps, x.shape[2]) if state is None else state
    padded = torch.cat([before[:, 1:], x], dim=1)
    products = (padded[:, tap : tap + time] * weight[:, tap] for tap in range(taps))
    out = reduce(torch.add, products)
    return out if bias is None else out + bias


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Runs the reference again and differentiates it."""
    operands: list[Any] = [
        None if t is None else t.detach().requires_grad_() for t in ctx.saved_tensors
    ]
    with torch.enable_grad():
        output = short_conv(*operands)
    found = iter(torch.autograd.grad(output, [t for t in operands if t is not None], grad))
    return tuple(None if t is None else next(found) for t in operands)


torch.library.register_autograd("mmfree::short_conv", _backward, setup_context=_setup)
torch.library.register_autocast("mmfree::short_conv", "cpu", torch.float32)
