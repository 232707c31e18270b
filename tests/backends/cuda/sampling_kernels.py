"""The kernels that choose tokens, alone: only the processes of triton_process.py import this."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import torch
from interpreted import DTYPES
from library_ptx import instructions_of, spilled_bytes
from numpy.typing import NDArray
from triton import knobs

from mmfree_compiler.backends.cuda import lanes
from mmfree_compiler.backends.cuda.compile import build
from mmfree_compiler.backends.cuda.compile.kernel import Source
from mmfree_compiler.backends.cuda.compile.sampling import sampling
from mmfree_compiler.program import Program, Value

INTERPRETED = knobs.runtime.interpret
DEVICE = "cpu" if INTERPRETED else "cuda"
Records = NDArray[Any]
NOTHING: Any = {"kind": "lm", "constants": {}, "states": (), "body": ()}


@cache
def kernels(vocabulary: int) -> tuple[list[Source], ModuleType]:
    values = {"ids": Value("ids", 1, "int64"), "logits": Value("logits", vocabulary)}
    sources = sampling(Program(inputs=("ids",), outputs=("logits",), values=values, **NOTHING))
    with tempfile.TemporaryDirectory() as folder:
        return sources, build.loaded(sources, Path(folder), asm=not INTERPRETED)


def chosen(
    logits: NDArray[np.float32], choices: Records, steps: int
) -> tuple[Records, Records, dict[str, Any]]:
    """The tokens (lanes, RING) of some steps on the same logits (lanes, V), and what they leave.

    That is the choices, and the ids, slots and targets of the next step.
    """
    count, vocabulary = logits.shape
    memory: dict[str, Records] = {
        "output": logits,
        "choices": choices,
        "work": np.full(count * lanes.work(vocabulary).itemsize, 0x7F, np.uint8),
        "drawn": np.zeros((count, lanes.RING), lanes.DRAWN),
        "input": np.zeros(count, np.int64),
        "slots": np.zeros(count, np.int32),
        "targets": np.zeros(count, np.int32),
        "counts": np.array([count, count], np.int32),
    }
    there = {name: _bytes(array).to(DEVICE) for name, array in memory.items()}
    for _ in range(steps):
        for source in kernels(vocabulary)[0]:
            _launch(source, vocabulary, count, there)
    after = {
        name: there[name].cpu().numpy().view(array.dtype).reshape(array.shape)
        for name, array in memory.items()
    }
    left = {name: after[name] for name in ("input", "slots", "targets")}
    return after["drawn"], after["choices"], left


def _launch(source: Source, vocabulary: int, count: int, there: dict[str, torch.Tensor]) -> None:
    passed = [
        _pointer(there[argument.space][argument.offset :], DTYPES[kind])
        for argument, kind in zip(source.arguments, source.parameters, strict=True)
    ]
    # One lane more than there are: its programs do nothing.
    grid = (source.columns, count + 1)
    function = getattr(kernels(vocabulary)[1], source.name)
    function[grid](*passed, num_warps=source.warps, enable_fp_fusion=False)


def _bytes(array: Records) -> torch.Tensor:
    """A copy."""
    return torch.from_numpy(array.reshape(-1).view(np.uint8).copy())


def _pointer(data: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    return data[: len(data) // dtype.itemsize * dtype.itemsize].view(dtype)


def compiled(arch: str) -> tuple[set[str], int]:
    """All PTX instructions of the kernels for a large vocabulary, and the bytes that they spill."""
    made = [build.triton_compiled(x, arch).asm["ptx"] for x in kernels(32_000)[0]]
    spilled = sum(spilled_bytes(ptx, int(arch.removeprefix("sm_"))) for ptx in made)
    return set().union(*map(instructions_of, made)), spilled
