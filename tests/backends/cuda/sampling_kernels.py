"""The kernels that choose tokens, alone: only the process that interprets kernels imports this."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from interpreted import DTYPES
from numpy.typing import NDArray

from mmfree_compiler.backends.cuda import lanes
from mmfree_compiler.backends.cuda.compile import build
from mmfree_compiler.backends.cuda.compile.kernel import Source
from mmfree_compiler.backends.cuda.compile.sampling import sampling
from mmfree_compiler.program import Program, Value

Records = NDArray[Any]
NOTHING: Any = {"kind": "lm", "constants": {}, "states": (), "body": ()}


@cache
def kernels(vocabulary: int) -> tuple[list[Source], ModuleType]:
    values = {"ids": Value("ids", 1, "int64"), "logits": Value("logits", vocabulary)}
    sources = sampling(Program(inputs=("ids",), outputs=("logits",), values=values, **NOTHING))
    with tempfile.TemporaryDirectory() as folder:
        return sources, build.loaded(sources, Path(folder), asm=False)


def chosen(
    logits: NDArray[np.float32], choices: Records, steps: int
) -> tuple[Records, Records, dict[str, Any]]:
    """The tokens (lanes, RING) of some steps on the same logits (lanes, V), and what they leave.

    That is the choices, and the ids, slots and targets of the next step.
    """
    count, vocabulary = logits.shape
    memory: dict[str, Any] = {
        "output": logits.copy(),
        "choices": choices.copy(),
        "work": np.full(count * lanes.work(vocabulary).itemsize, 0x7F, np.uint8),
        "drawn": np.zeros((count, lanes.RING), lanes.DRAWN),
        "input": np.zeros(count, np.int64),
        "slots": np.zeros(count, np.int32),
        "targets": np.zeros(count, np.int32),
        "counts": np.array([count, count], np.int32),
    }
    sources, module = kernels(vocabulary)
    for _ in range(steps):
        for source in sources:
            passed = [
                _pointer(memory[argument.space], argument.offset, kind)
                for argument, kind in zip(source.arguments, source.parameters, strict=True)
            ]
            # One lane more than there are: its programs do nothing.
            getattr(module, source.name)[(source.columns, count + 1)](*passed)
    left = {name: memory[name] for name in ("input", "slots", "targets")}
    return memory["drawn"], memory["choices"], left


def _pointer(array: Records, offset: int, kind: str) -> torch.Tensor:
    data = torch.from_numpy(array.reshape(-1).view(np.uint8))[offset:]
    size = DTYPES[kind].itemsize
    return data[: len(data) // size * size].view(DTYPES[kind])
