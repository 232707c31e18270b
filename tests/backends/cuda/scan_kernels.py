"""Kernels of scans in Gluon: interpreted as Triton's, and compiled.

Only the processes of triton_process.py import this.
"""

from __future__ import annotations

import re
from dataclasses import replace
from unittest import mock

import numpy as np
import torch
from cuda_models import IDS, same, session
from library_ptx import spilled_bytes
from op_modules import mm
from test_cuda_schedule import program_of
from torch import Tensor, nn

import mmfree_compiler as mmf
from mmfree_compiler.artifact import pack_constants
from mmfree_compiler.backends.cuda.compile import gluon_scans, sources, tuning
from mmfree_compiler.backends.cuda.compile.build import triton_compiled
from mmfree_compiler.backends.cuda.compile.compiler import planned
from mmfree_compiler.backends.cuda.compile.kernel import Source
from mmfree_compiler.backends.cuda.compile.shapes import PLANS, PlanShape, Shape, Sizes
from mmfree_compiler.runtime import State

V = 37
SCAN = Sizes().scan


class Recurrent(nn.Module):
    """A scan of all that one reads: rows of other kernels, a residual, taps, a bias, a number."""

    def __init__(self, width: int = V) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.c, self.f = torch.randn(2, V, width, generator=generator)
        self.taps = torch.randn(width, 3, generator=generator)
        self.bias = torch.randn(width, generator=generator)
        self.size = torch.tensor([3.0])

    def forward(self, ids: Tensor) -> Tensor:
        c, f = mm.embedding(ids, self.c), mm.embedding(ids, self.f)
        h = mm.mlgru_scan(mm.short_conv(c, self.taps, self.bias), mm.sigmoid(f))
        out: Tensor = mm.mul(mm.add(h, c), self.size)
        return out


class OfInputs(nn.Module):
    """A scan of rows that the caller has, which may begin anywhere."""

    def forward(self, c: Tensor, forget: Tensor) -> Tensor:
        out: Tensor = mm.mlgru_scan(c, forget)
        return out


def differing(columns: int, stages: int, block_tokens: int, unrolled: int) -> list[str]:
    """What differs from the reference: two sequences of other lengths, in pieces.

    Parts of up to `unrolled` nodes have no loop over the tokens of a block.
    """
    sizes = {"columns": columns, "stages": stages, "block_tokens": block_tokens}
    settings = {**tuning.defaults("sm_90"), **{f"scan {name}": sizes[name] for name in sizes}}
    with (
        mock.patch.object(tuning, "find", return_value=settings),
        mock.patch.object(sources, "GLUON_ROWS", {}),  # scans alone are in Gluon
        mock.patch.object(gluon_scans, "MOST_UNROLLED", unrolled),
    ):
        ours = session(Recurrent(), IDS, _plans(SCAN))
    theirs = mmf.compile(Recurrent(), "reference", check=False, example_inputs=IDS).session
    ids = torch.randint(0, V, (2, 9), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[0] * 4 + [1] * 5, [1] * 9])
    found: list[str] = []
    states: list[State | None] = [None, None]
    for first, end in ((0, 9), (5, 9), (7, 9)):
        piece, exists = ids[:, first:end], mask[:, first:end]
        both = [
            run(piece, state, mask=exists)
            for run, state in zip((ours, theirs), states, strict=True)
        ]
        states = [state for _, state in both]
        logits = [each[exists.bool()] for each, _ in both]
        found += [] if same(*logits) else [f"{first}:{end}"]
        for slot in ours.artifact.manifest.states:
            a, b = (state.part(slot.name) for _, state in both)
            found += [] if np.array_equal(a, b) else [f"{slot.name} after {first}:{end}"]
    return found


def compiled(arch: str, columns: int, warps: int, width: int) -> tuple[set[str], int, int]:
    """Bytes of the copies of a kernel, times that it waits for some, and the bytes it spills."""
    shape = replace(SCAN, columns=columns, warps=warps)
    ptx = triton_compiled(_scan(Recurrent(width), IDS, shape), arch).asm["ptx"]
    waits = len(re.findall(r"cp\.async\.wait_group", ptx))
    return _copied(ptx), waits, spilled_bytes(ptx, int(arch.removeprefix("sm_")))


def of_inputs(width: int) -> set[str]:
    """The bytes of the copies of a kernel that reads inputs."""
    inputs = (torch.randn(1, 2, width),) * 2
    return _copied(triton_compiled(_scan(OfInputs(), inputs, SCAN), "sm_90").asm["ptx"])


def shared_bytes(arch: str) -> int:
    """The shared memory of a kernel of the largest sizes that a search tries, all at once."""
    shape = replace(SCAN, columns=64, stages=8, block_tokens=64)
    with mock.patch.object(gluon_scans, "MOST_UNROLLED", 0):  # the same rings, compiled faster
        made = triton_compiled(_scan(Recurrent(64), IDS, shape), arch)
    shared: int = made.metadata.shared
    return shared


def _copied(ptx: str) -> set[str]:
    return set(re.findall(r"cp\.async\.c[ag]\.shared\S* \[.*?\], \[.*?\], (\w+)", ptx))


def _scan(module: nn.Module, inputs: tuple[Tensor, ...], shape: Shape) -> Source:
    program = program_of(module, *inputs)
    _, tensors = pack_constants(program.constants.values())
    kernels, _ = planned(program, tensors, _plans(shape))
    (found,) = (source for source in kernels if "scan" in source.name)
    assert found.language == "gluon"
    return found


def _plans(shape: Shape) -> tuple[PlanShape, ...]:
    sizes = Sizes(scan=shape)
    return tuple(replace(plan, gluon=plan.together, sizes=sizes) for plan in PLANS)
