"""Ops that are pointwise in columns, sequential in time, and carry a state."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmfree_compiler.ops.table import like_first, op


def _mlgru_scan_fake(c: Tensor, forget: Tensor, h0: Tensor | None = None) -> Tensor:
    return like_first(c)


@op("scan", _mlgru_scan_fake)
def mlgru_scan(c: Tensor, forget: Tensor, h0: Tensor | None = None) -> Tensor:
    """`h_t = forget_t * h_{t-1} + c_t` over time: c, forget (B, T, I); h0 (B, I), zero when None.

    Returns every h_t (B, T, I); the state after it is `h[:, -1]`.
    """
    h = torch.empty_like(c)
    last = torch.zeros_like(c[:, 0]) if h0 is None else h0
    for t in range(c.shape[1]):
        last = torch.addcmul(c[:, t], forget[:, t], last, out=h[:, t])
    return h


def _scan_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, forget, h0 = inputs
    ctx.save_for_backward(forget, output)
    ctx.h0 = h0


def _scan_backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
    """dc_t = dh_t + forget_{t+1} * dc_{t+1}; dforget_t = dc_t * h_{t-1}."""
    forget, h = ctx.saved_tensors
    dc = torch.empty_like(h)
    dc[:, -1] = grad[:, -1]
    for t in range(h.shape[1] - 2, -1, -1):
        torch.addcmul(grad[:, t], forget[:, t + 1], dc[:, t + 1], out=dc[:, t])
    first = torch.zeros_like(h[:, 0]) if ctx.h0 is None else ctx.h0
    previous = torch.cat([first[:, None], h[:, :-1]], dim=1)
    dh0 = None if ctx.h0 is None else forget[:, 0] * dc[:, 0]
    return dc, dc * previous, dh0


torch.library.register_autograd("mmfree::mlgru_scan", _scan_backward, setup_context=_scan_setup)
# Under autocast only matrix products run in lower precision; the recurrence stays fp32.
torch.library.register_autocast("mmfree::mlgru_scan", "cpu", torch.float32)


def _short_conv_fake(
    x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None = None
) -> Tensor:
    return like_first(x)


@op("scan", _short_conv_fake)
def short_conv(
    x: Tensor, weight: Tensor, bias: Tensor | None, state: Tensor | None = None
) -> Tensor:
    """Depthwise causal convolution: x (B, T, D), weight (D, k), state (B, k, D) the last k inputs.

    `y_t = sum_j weight_j * x_{t-k+1+j}` (numerics 10, without its silu). The state after it is the
    last k rows of the state followed by x.
    """
    taps = weight.shape[1]
    before = x.new_zeros(x.shape[0], taps, x.shape[2]) if state is None else state
    padded = torch.cat([before[:, 1:], x], dim=1).transpose(1, 2)
    return F.conv1d(padded, weight[:, None], bias, groups=x.shape[2]).transpose(1, 2).contiguous()


def _conv_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _conv_backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Differentiates the reference itself, run again."""
    operands = [None if t is None else t.detach().requires_grad_() for t in ctx.saved_tensors]
    with torch.enable_grad():
        output = short_conv(*operands)
    found = iter(torch.autograd.grad(output, [t for t in operands if t is not None], grad))
    return tuple(None if t is None else next(found) for t in operands)


torch.library.register_autograd("mmfree::short_conv", _conv_backward, setup_context=_conv_setup)
torch.library.register_autocast("mmfree::short_conv", "cpu", torch.float32)
