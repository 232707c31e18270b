"""Models on the CUDA target, in the process that interprets kernels (triton_process.py).

Each function returns what differs from the reference: nothing, where the bits are equal.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import torch
from golden_cases import BUNDLED
from interpreted import InterpretedExecutor
from op_modules import TinyLM, mm, ternary
from special_values import Pointwise, Rows, forced_rows, pairs
from torch import Tensor, nn

import mmfree_compiler as mmf
from mmfree_compiler.artifact.binding import NOTE, SIZE
from mmfree_compiler.backends.cuda.compile import build, compiler
from mmfree_compiler.backends.cuda.compile.kernel import Source
from mmfree_compiler.backends.cuda.compile.profile import profile_of
from mmfree_compiler.backends.cuda.compile.shapes import PLANS, PlanShape
from mmfree_compiler.backends.cuda.facts import Kernel
from mmfree_compiler.backends.cuda.run import calls, timing
from mmfree_compiler.backends.cuda.run.launcher import CudaLauncher
from mmfree_compiler.backends.explained import Profile
from mmfree_compiler.runtime import Session, device_arrays

IDS = (torch.zeros(2, 3, dtype=torch.int64),)


# Gluon has no interpreter; the kernels of Triton that take its place have the same bits.
INTERPRETED = tuple(replace(plan, gluon=False) for plan in PLANS)


def session(
    model: nn.Module | Path,
    inputs: tuple[Tensor, ...] | None = None,
    plans: tuple[PlanShape, ...] = INTERPRETED,
) -> Session:
    """A session that runs the generated kernels in Triton's interpreter: scans in Gluon too."""
    kernels: list[Source] = []

    def made(sources: Sequence[Source], archs: Sequence[str]) -> dict[str, Any]:
        kernels.extend(map(_in_triton, sources))
        return {arch: (NOTE + bytes(SIZE), {s.name: _place(s) for s in sources}) for arch in archs}

    with (
        mock.patch.object(compiler, "compiled", made),
        mock.patch.object(compiler, "PLANS", plans),
    ):
        artifact = mmf.compile(model, "cuda:sm_90", example_inputs=inputs, check=False).artifact
    with tempfile.TemporaryDirectory() as folder:
        module = build.loaded(kernels, Path(folder), asm=False)
        executor = InterpretedExecutor(module)
        launcher = CudaLauncher(artifact, artifact.entry.builds[0], executor)
        return Session(artifact, launcher=launcher)


def _in_triton(source: Source) -> Source:
    if source.language == "triton":
        return source
    text = source.text.replace("@gluon.jit", "@triton.jit").replace(", COLUMNS)", ")")
    names = f"import row_ring_in_triton as row_ring\n\nSTAGES = {source.stages}"
    return replace(source, text=f"{names}\n\n\n{text}", language="triton")


def _place(source: Source) -> Kernel:
    parameters = list(source.parameters)
    return Kernel(
        symbol=source.name,
        offset=0,
        size=1,
        warps=1,
        shared=0,
        dependent=False,
        parameters=parameters,
    )


def same(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a.isnan(), b.isnan()) and torch.equal(
        a.nan_to_num().view(torch.int32), b.nan_to_num().view(torch.int32)
    )


def language_model(bundled: str) -> list[str]:
    """Prefill, steps, several sequences, a ragged batch, and states; "" is a small model."""
    model: Any = BUNDLED / bundled if bundled else TinyLM(L=2)
    examples = None if bundled else IDS
    ours = session(model, examples)
    theirs = mmf.compile(model, "reference", check=False, example_inputs=examples).session
    ids = torch.randint(0, 20, (2, 6), generator=torch.Generator().manual_seed(1))
    mask = torch.tensor([[1] * 3, [0] * 2 + [1]])
    differing = []
    states: list[Any] = [None, None]
    for name, piece in {"prefill": ids[:, :5], "step": ids[:, 5:]}.items():
        found = [run(piece, state) for run, state in zip((ours, theirs), states, strict=True)]
        states = [state for _, state in found]
        differing += [name] if not same(found[0][0], found[1][0]) else []
    ragged = [run(ids[:, :3], mask=mask)[0][mask.bool()] for run in (ours, theirs)]
    differing += ["ragged"] if not same(*ragged) else []
    for slot in ours.artifact.manifest.states:
        a, b = (state.part(slot.name) for state in states)
        differing += [slot.name] if not np.array_equal(a, b) else []
    # A state of the reference goes on here.
    logits = [run(ids[:, :1], states[1].fork())[0] for run in (ours, theirs)]
    return differing + (["a continued state"] if not same(*logits) else [])


class Odd(nn.Module):
    """Products of several widths in one stage, a bias, a broadcast number, an input as output."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(5)
        self.narrow, self.wide = ternary(5, 17, generator), ternary(300, 17, generator)
        self.bias, self.scale = torch.randn(300, generator=generator), torch.tensor([0.25])
        self.number = torch.tensor([3.0])

    def forward(self, x: Tensor) -> list[Tensor]:
        codes, scale = mm.quantize(x, 1e-5)
        narrow = mm.ternary_linear(codes, scale, self.narrow, self.scale, None)
        wide = mm.ternary_linear(codes, scale, self.wide, self.scale, self.bias)
        return [narrow, mm.mul(mm.silu(wide), self.number), x, wide]


class Pair(nn.Module):
    """Two inputs and outputs, without products: the interpreter is fast at it."""

    def forward(self, x: Tensor, y: Tensor) -> list[Tensor]:
        return [mm.add(x, y), mm.relu(x)]


MODULES: dict[str, tuple[type[nn.Module], tuple[int, ...]]] = {
    "pointwise": (Pointwise, ()),
    "rows": (Rows, (37,)),
    "odd": (Odd, ()),
}


def module(name: str, count: int) -> list[str]:
    """`count` rows at once."""
    kind, arguments = MODULES[name]
    made = kind(*arguments)
    inputs = _inputs(name, count)
    ours = session(made, tuple(x[:1] for x in inputs))
    found = zip(ours(*inputs), made(*inputs), strict=True)
    return [f"output {k}" for k, (a, b) in enumerate(found) if not same(a, b)]


def rows_on_the_device() -> list[str]:
    """Rows that lie where the kernels run, between others, in several calls of two tokens."""
    x, y = torch.randn(2, 5, 2, 17, generator=torch.Generator().manual_seed(2))[:, :, 1]
    with mock.patch.object(device_arrays, "HOST", ()), mock.patch.object(calls, "CHUNK", 2):
        found = zip(session(Pair(), (x[:1], y[:1]))(x, y), Pair()(x, y), strict=True)
        return [f"output {k}" for k, (a, b) in enumerate(found) if not same(a, b)]


def profiled(name: str) -> tuple[Profile, list[str]]:
    """The times of a module's kernels, and the first outputs of its nodes."""
    found = session(MODULES[name][0](*MODULES[name][1]), _inputs(name, 1))
    assert isinstance(found.launcher, CudaLauncher)
    assert found.artifact.program is not None
    with mock.patch.multiple(timing, ROUNDS=2, IN_A_ROW=1):
        made = profile_of(found.launcher, found.artifact)
    return made, [node.outputs[0] for node in found.artifact.program.nodes()]


def _inputs(name: str, count: int) -> tuple[Tensor, ...]:
    if name == "pointwise":
        return tuple(x[:count] for x in pairs(37))
    if name == "rows":
        rows = forced_rows(37)
        return rows[:count], rows.flip(0)[:count]
    return (torch.randn(count, 17, generator=torch.Generator().manual_seed(2)),)
