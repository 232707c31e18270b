"""Tiles of products by wgmma, compiled; only the processes of triton_process.py import this."""

from __future__ import annotations

import torch
from fused_kernels import Products
from library_ptx import spilled_bytes
from test_cuda_schedule import program_of

from mmfree_compiler.artifact import pack_constants
from mmfree_compiler.backends.cuda.compile.build import triton_compiled
from mmfree_compiler.backends.cuda.compile.compiler import planned
from mmfree_compiler.backends.cuda.compile.shapes import PlanShape, Shape, Sizes


def compiled(products: int, k: int, shape: Shape) -> tuple[int, int, bool]:
    """Of a stage's products of k columns: shared memory, spilled bytes, whether wgmma is there."""
    program = program_of(Products(products, k), torch.randn(1, k))
    _, tensors = pack_constants(program.constants.values())
    plan = PlanShape(shape.tokens, together=False, sizes=Sizes(gemm=(shape,)))
    kernels, _ = planned(program, tensors, [plan])
    (source,) = (kernel for kernel in kernels if "wgmma" in kernel.text)
    made = triton_compiled(source, "sm_90")
    ptx = made.asm["ptx"]
    return made.metadata.shared, spilled_bytes(ptx, 90), "wgmma.mma_async.sync.aligned" in ptx
