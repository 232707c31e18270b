"""Scan `mlgru_scan`: the recurrence of the MatMul-free LM."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmfree_compiler.ops.register import like_first, op
from mmfree_compiler.ops.table import StateRule

_STATE = StateRule(shape=lambda c, *_: (c[-1],), after=lambda h, *_: h[:, -1])


@op("scan", like_first, state=_STATE)
def mlgru_scan(c: Tensor, forget: Tensor, h0: Tensor | None = None) -> Tensor:
    """`h_t = forget_t * h_{t-1} + c_t` over time: c, forget (B, T, I); h0 (B, I), zero when None.

    Returns every h_t (B, T, I); the state after it is `h[:, -1]`. The product is rounded before the
    sum; torch.addcmul does so for some widths only.
    """
    h = torch.empty_like(c)
    last = torch.zeros_like(c[:, 0]) if h0 is None else h0
    for t in range(c.shape[1]):
        last = torch.mul(forget[:, t], last, out=h[:, t]).add_(c[:, t])
    return h


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, forget, h0 = inputs
    ctx.save_for_backward(forget, output)
    ctx.h0 = h0


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
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


torch.library.register_autograd("mmfree::mlgru_scan", _backward, setup_context=_setup)
# Under autocast only matrix products run in lower precision; the recurrence stays fp32.
torch.library.register_autocast("mmfree::mlgru_scan", "cpu", torch.float32)
