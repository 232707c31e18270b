"""Kernels that make only products: only the processes of triton_process.py import this."""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import torch
import triton
import triton.language as tl
from numpy.typing import NDArray
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from mmfree_compiler.backends.cuda.compile.kernels.gemm import gemm
from mmfree_compiler.backends.cuda.compile.kernels.gemv import gemv


@triton.jit
def gemv_kernel(
    codes: tl.tensor,
    stride: tl.tensor,
    tokens: tl.tensor,
    weights: tl.tensor,
    out: tl.tensor,
    K: tl.constexpr,
    TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    ASM: tl.constexpr,
) -> None:
    """All rows of the block to `out`, (TOKENS, programs * COLUMNS)."""
    first = tl.program_id(0) * COLUMNS
    sums = gemv(codes, stride, tokens, weights, first, K, TOKENS, COLUMNS, BLOCK_K, ASM)
    row = tl.arange(0, TOKENS)[:, None] * tl.num_programs(0) * COLUMNS
    tl.store(out + row + first + tl.arange(0, COLUMNS)[None, :], sums)


@triton.jit
def gemm_kernel(
    codes: tl.tensor,
    stride: tl.tensor,
    tokens: tl.tensor,
    weights: tl.tensor,
    out: tl.tensor,
    K: tl.constexpr,
    TOKENS: tl.constexpr,
    COLUMNS: tl.constexpr,
    BLOCK_K: tl.constexpr,
    ASM: tl.constexpr,
) -> None:
    """The same for all blocks of tokens: `out` is (programs * TOKENS, programs * COLUMNS)."""
    first, token = tl.program_id(0) * COLUMNS, tl.program_id(1) * TOKENS
    rows, columns = (codes,), (weights,)
    (sums,) = gemm(rows, stride, token, tokens, columns, first, K, TOKENS, COLUMNS, BLOCK_K, ASM)
    row = (token + tl.arange(0, TOKENS))[:, None] * tl.num_programs(0) * COLUMNS
    tl.store(out + row + first + tl.arange(0, COLUMNS)[None, :], sums)


KERNELS = {"gemv": gemv_kernel, "gemm": gemm_kernel}


def products(
    which: str,
    codes: NDArray[np.int8],
    tokens: int,
    packed: NDArray[np.uint8],
    grid: tuple[int, int],
    constants: Mapping[str, int],
) -> NDArray[np.int32]:
    """What the interpreted kernel writes: all blocks of `grid`, (columns, tokens)."""
    shape = grid[1] * constants["TOKENS"], grid[0] * constants["COLUMNS"]
    out = torch.full(shape, -1, dtype=torch.int32)
    operands = torch.from_numpy(codes), codes.shape[1], tokens, torch.from_numpy(packed)
    KERNELS[which][grid](*operands, out, ASM=False, **constants)
    return out.numpy()


@dataclass(frozen=True)
class Compiled:
    """The PTX of a kernel; bytes of shared memory, and of stack, where spilled registers go."""

    ptx: str
    shared: int
    stack: int


def compiled(which: str, architecture: int, warps: int, constants: Mapping[str, int]) -> Compiled:
    """A kernel for one architecture, such as 90."""
    signature = {"codes": "*i8", "stride": "i32", "tokens": "i32", "weights": "*u8", "out": "*i32"}
    source = ASTSource(
        fn=KERNELS[which],
        signature=signature | dict.fromkeys([*constants, "ASM"], "constexpr"),
        constexprs={**constants, "ASM": True},
        attrs={(i,): [["tt.divisibility", 16]] for i in (0, 3, 4)},
    )
    options = {"num_warps": warps, "enable_fp_fusion": False}
    kernel = triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)
    return Compiled(kernel.asm["ptx"], kernel.metadata.shared, _stack_bytes(kernel.asm["cubin"]))


def _stack_bytes(cubin: bytes) -> int:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "-res-usage", file.name]
        used = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = re.search(r"STACK:(\d+)", used)
    assert found, used
    return int(found[1])
