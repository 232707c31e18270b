"""The model's products alone, by torch's libraries, in one CUDA graph.

bf16 by cuBLAS, or int8 by `torch._int_mm`, which takes more than 16 rows: the head of a prefill,
one row, is left out there.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.gpu.peers import PEERS, GpuJob, Opened
from benchmarks.gpu.recording import recorded, repeated
from benchmarks.gpu.sampling import Sampler
from benchmarks.shapes import Shape
from benchmarks.tasks import Task

LEAST_INT8_ROWS = 17


def open_model(job: GpuJob) -> Opened:
    """All products of the job's task, with weights of their own."""
    assert job.task is not None
    with torch.device("cuda"):
        pairs = list(operands(job.shape, job.task, getattr(torch, PEERS[job.peer].option)))
    call = recorded(lambda: multiplied(pairs))
    nbytes = sum(weight.numel() * weight.itemsize for _, weight in pairs)
    return Opened(Sampler(repeated(call)), {"weight_bytes": nbytes})


def operands(shape: Shape, task: Task, dtype: torch.dtype) -> Iterator[tuple[Tensor, Tensor]]:
    """Rows (M, K) and a weight (N, K) for each product of a call, the head last."""
    sequences = task.size if task.kind == "decode" else 1
    products = [(task.size, matrix) for matrix in shape.layer_matrices * shape.layers]
    products.append((sequences, (shape.vocabulary, shape.hidden)))
    for rows, (n, k) in products:
        if dtype != torch.int8 or rows >= LEAST_INT8_ROWS:
            codes = torch.randint(-127, 128, (rows, k), dtype=torch.int8)
            yield codes.to(dtype), torch.randint(-1, 2, (n, k), dtype=torch.int8).to(dtype)


def multiplied(pairs: list[tuple[Tensor, Tensor]]) -> list[Tensor]:
    """The product (M, N) of each pair: bf16, or int32 of int8."""
    return [_PRODUCTS[rows.dtype](rows, weight) for rows, weight in pairs]


_PRODUCTS: dict[torch.dtype, Callable[[Tensor, Tensor], Tensor]] = {
    torch.bfloat16: F.linear,
    torch.int8: lambda rows, weight: torch._int_mm(rows, weight.t()),
}
