"""Generated kernels, compiled; only the processes of triton_process.py import this."""

from __future__ import annotations

import torch
from library_ptx import spilled_bytes
from op_modules import TinyLM, mm, ternary
from test_cuda_schedule import program_of
from torch import Tensor, nn

from mmfree_compiler.artifact import pack_constants
from mmfree_compiler.backends.cuda.compile.build import triton_compiled
from mmfree_compiler.backends.cuda.compile.compiler import planned
from mmfree_compiler.backends.cuda.compile.kernel import Source


def compiled(arch: str) -> list[tuple[bool, int]]:
    """Of each kernel of a model: whether it waits for the one in front, and the bytes it spills."""
    program = program_of(TinyLM(L=2), torch.zeros(2, 3, dtype=torch.int64))
    _, tensors = pack_constants(program.constants.values())
    kernels, _ = planned(program, tensors)
    made = [triton_compiled(x, arch).asm["ptx"] for x in kernels if x.language == "gluon"]
    capability = int(arch.removeprefix("sm_"))
    return [("griddepcontrol.wait" in ptx, spilled_bytes(ptx, capability)) for ptx in made]


def shared_bytes(arch: str) -> list[int]:
    """The shared memory of the kernels for many tokens of a stage with three products."""
    chosen = [x for x in _kernels(3, 1024) if "tiles" in x.name and x.name.endswith("_64x64")]
    return [triton_compiled(source, arch).metadata.shared for source in chosen]


def of_many_norms(count: int) -> list[str]:
    """Names of the Gluon kernels of a stage with `count` norms of one row, which were compiled."""
    chosen = [x for x in _kernels(count, 24) if x.language == "gluon"]
    return [triton_compiled(source, "sm_90").metadata.name for source in chosen]


def _kernels(products: int, width: int) -> list[Source]:
    program = program_of(Products(products, width), torch.randn(1, width))
    _, tensors = pack_constants(program.constants.values())
    return planned(program, tensors)[0]


class Products(nn.Module):
    """Square products, each with codes of its own."""

    def __init__(self, count: int, width: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.weights = [ternary(width, width, generator) for _ in range(count)]
        self.norm, self.scale = torch.ones(width), torch.tensor([0.5])

    def forward(self, x: Tensor) -> Tensor:
        norms = [self.norm] * len(self.weights)
        made = mm.norm_quant(x, self.norm, 1e-6, norms, 1e-6, 1e-5)
        pairs = zip(made[::2], made[1::2], self.weights, strict=True)
        out: Tensor
        out, *others = (mm.ternary_linear(q, s, w, self.scale, None) for q, s, w in pairs)
        for other in others:
            out = mm.add(out, other)
        return out
