"""The recurrence over time as one torch op, for the torch peers' prefill.

On a GPU it is a Triton kernel that goes through time in order, with several loads under way.
"""

from __future__ import annotations

import torch
from torch import Tensor

CHANNELS = 32  # of a program: one warp, so that many programs share the memory's latency
STAGES = 8  # steps whose loads are under way
UNROLLED = 8


@torch.library.custom_op("benchmarks::recurrence", mutates_args=(), device_types="cpu")
def recurrence(c: Tensor, forget: Tensor, h0: Tensor) -> Tensor:
    """h_t = forget_t * h_{t-1} + c_t: c, forget (B, T, I) fp32 and h0 (B, I) -> h, in h0's dtype.

    I is a multiple of CHANNELS.
    """
    last, steps = h0.float(), []
    for t in range(c.shape[1]):
        last = forget[:, t] * last + c[:, t]
        steps.append(last)
    return torch.stack(steps, dim=1).to(h0.dtype)


@recurrence.register_kernel("cuda")
def _on_gpu(c: Tensor, forget: Tensor, h0: Tensor) -> Tensor:
    from benchmarks.gpu.recurrence_kernel import scan

    batch, length, width = c.shape
    h = torch.empty(c.shape, dtype=h0.dtype, device=c.device)
    grid = (width // CHANNELS, batch)
    scan[grid](c, forget, h0, h, length, width, CHANNELS, STAGES, UNROLLED, num_warps=1)
    return h


@recurrence.register_fake
def _like(c: Tensor, forget: Tensor, h0: Tensor) -> Tensor:  # noqa: ARG001 - the op's signature
    return torch.empty_like(c, dtype=h0.dtype)
