"""The rate at which the GPU reads its memory: the sum of 4 GiB, many times its caches."""

from __future__ import annotations

import torch

from benchmarks.gpu.peers import GpuJob, Opened
from benchmarks.gpu.recording import repeated
from benchmarks.gpu.sampling import Sampler

FLOATS = 1 << 30


def open_model(job: GpuJob) -> Opened:  # noqa: ARG001 - peers.Module
    """`weight_bytes` are those that are read, whatever the job's model is."""
    buffer = torch.zeros(FLOATS, dtype=torch.float32, device="cuda")
    run = repeated(buffer.sum)
    return Opened(Sampler(run), {"weight_bytes": buffer.nbytes})
