"""Calls of torch on a GPU: repeating them, and recording them as CUDA graphs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch

Call = Callable[[], Any]


def repeated(call: Call) -> Callable[[int], None]:
    """Makes n calls, and waits for the last."""

    def run(count: int) -> None:
        for _ in range(count):
            call()
        torch.cuda.synchronize()

    return run


def recorded(call: Call) -> Call:
    """What `call` puts on the GPU, as one launch."""
    aside: Any = torch.cuda.Stream()  # type: ignore[no-untyped-call]  # torch has no type for it
    with torch.cuda.stream(aside):  # libraries allocate what they need before it is recorded
        call()
    aside.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay
