"""The kernel of the torch peers' recurrence, in the process that interprets kernels."""

from __future__ import annotations

import torch

from benchmarks.gpu import recurrence


def differing() -> int:
    """How many of the values of two sequences are not those of the op on a CPU."""
    generator = torch.Generator().manual_seed(0)
    width = 2 * recurrence.CHANNELS
    c, forget = (torch.rand(2, 21, width, generator=generator) for _ in range(2))
    h0 = torch.rand(2, width, generator=generator)
    found = recurrence._on_gpu(c, forget, h0)
    return int((found != recurrence.recurrence(c, forget, h0)).sum())
