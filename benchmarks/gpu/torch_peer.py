"""torch_lm.py in bf16: eager, recorded as a CUDA graph, and compiled."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.gpu.peers import PEERS, GpuJob, Opened
from benchmarks.gpu.recording import recorded, repeated
from benchmarks.gpu.sampling import Sampler
from benchmarks.gpu.torch_lm import TorchLM
from benchmarks.tasks import Task

COMPILING_PROCESSES = 4  # of each torch.compile: those of all tasks run at once

Call = Callable[[], Any]


def open_model(job: GpuJob) -> Opened:
    """The model of the job, made on the GPU."""
    assert job.task is not None
    batch, length = call_shape(job.task)
    torch.set_grad_enabled(False)
    torch.set_default_dtype(torch.bfloat16)
    with torch.device("cuda"):
        model = TorchLM(job.shape, batch, length)
    call = RUNNERS[PEERS[job.peer].option](model)
    return Opened(Sampler(repeated(call)), {"weight_bytes": model.weight_bytes})


def call_shape(task: Task) -> tuple[int, int]:
    """Sequences, and tokens of each, of one call."""
    return (task.size, 1) if task.kind == "decode" else (1, task.size)


def _eager(model: nn.Module) -> Call:
    return model


def _compile(model: nn.Module) -> Call:
    import torch._inductor.config
    from torch._dynamo.utils import counters

    torch._inductor.config.compile_threads = COMPILING_PROCESSES
    compiled: Call = torch.compile(model, mode="reduce-overhead", fullgraph=True, dynamic=False)
    compiled()
    if skips := counters["inductor"]["cudagraph_skips"]:  # its figure would say nothing
        raise RuntimeError(f"torch.compile left out {skips} CUDA graphs")
    return compiled


RUNNERS: dict[str, Callable[[nn.Module], Call]] = {
    "eager": _eager,
    "graph": recorded,
    "compile": _compile,
}
