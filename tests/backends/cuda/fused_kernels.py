"""Gluon kernels, compiled; only the processes of triton_process.py import this."""

from __future__ import annotations

import torch
from library_ptx import spilled_bytes
from op_modules import TinyLM
from test_cuda_schedule import program_of

from mmfree_compiler.artifact import pack_constants
from mmfree_compiler.backends.cuda.compile.build import triton_compiled
from mmfree_compiler.backends.cuda.compile.compiler import planned


def compiled(arch: str) -> list[tuple[bool, int]]:
    """Of each kernel of a model: whether it waits for the one in front, and the bytes it spills."""
    program = program_of(TinyLM(L=2), torch.zeros(2, 3, dtype=torch.int64))
    _, tensors = pack_constants(program.constants.values())
    kernels, _ = planned(program, tensors)
    made = [triton_compiled(x, arch).asm["ptx"] for x in kernels if x.language == "gluon"]
    capability = int(arch.removeprefix("sm_"))
    return [("griddepcontrol.wait" in ptx, spilled_bytes(ptx, capability)) for ptx in made]
