"""The products of the device library: exact for every shape, and compiled to the instructions."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest
from triton_process import interpreted, native

from mmfree_compiler.backends.cuda.layouts import QUARTERS
from mmfree_compiler.backends.cuda.strides import codes_stride

SHAPES = [(1, 1), (3, 15), (130, 17), (20, 129), (5, 300), (20, 2047), (1, 9000)]
GARBAGE_ROWS = 2

GEMV = {"COLUMNS": 16, "BLOCK_K": 2048}
GEMM = {"TOKENS": 64, "COLUMNS": 128, "BLOCK_K": 256}
COMPILED = [  # (which, warps, constants)
    ("gemv", 8, {"K": 2048, "TOKENS": 1, **GEMV}),
    ("gemv", 8, {"K": 5632, "TOKENS": 4, **GEMV}),
    ("gemm", 4, {"K": 2048, **GEMM}),
    ("gemm", 4, {"K": 2047, **GEMM}),
]
# Architecture -> (most shared memory of a block in KiB, the instruction of its tensor cores)
ARCHITECTURES = {
    80: (163, "mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.s8.s32"),
    90: (227, "wgmma.mma_async.sync.aligned.m64n64k32.s32.s8.s8"),
    120: (99, "mma.sync.aligned.m16n8k32.row.col.satfinite.s32.s8.s8.s32"),
}


def _products(which: str, weight: Any, codes: Any, grid: tuple[int, int], **constants: int) -> Any:
    """What the kernel makes, (tokens, N), with garbage beyond the last row; rows beyond are 0."""
    (M, K), N = codes.shape, len(weight)
    padded = np.full((M + GARBAGE_ROWS, codes_stride(K)), 77, np.int8)
    padded[:M] = 0
    padded[:M, :K] = codes
    call = "product_kernels.products", which, padded, M, QUARTERS.pack(weight), grid
    out = interpreted(*call, constants | {"K": K})
    assert not out[M:].any()
    return out[:M, :N]


def _expected(weight: Any, codes: Any) -> Any:
    return codes.astype(np.int64) @ (weight.astype(np.int64) + 1).T


def _random(N: int, K: int, M: int) -> tuple[Any, Any]:
    random = np.random.default_rng([N, K, M])
    weight = random.integers(-1, 2, (N, K), dtype=np.int8)
    return weight, random.integers(-128, 128, (M, K), dtype=np.int8)


@pytest.mark.parametrize(("N", "K"), SHAPES)
@pytest.mark.parametrize(("M", "TOKENS"), [(1, 1), (3, 4), (7, 8)])
def test_gemv(N: int, K: int, M: int, TOKENS: int) -> None:
    weight, codes = _random(N, K, M)
    sizes = {"TOKENS": TOKENS, "COLUMNS": 64, "BLOCK_K": 2048 if K > 300 else 256}
    made = _products("gemv", weight, codes, (-(-N // 64), 1), **sizes)
    np.testing.assert_array_equal(made, _expected(weight, codes))


@pytest.mark.parametrize(("N", "K"), SHAPES)
@pytest.mark.parametrize("M", [1, 9, 33])
def test_gemm(N: int, K: int, M: int) -> None:
    weight, codes = _random(N, K, M)
    sizes = {"TOKENS": 16, "COLUMNS": 64, "BLOCK_K": 256}
    made = _products("gemm", weight, codes, (-(-N // 64), -(-M // 16)), **sizes)
    np.testing.assert_array_equal(made, _expected(weight, codes))


@pytest.mark.parametrize(("which", "TOKENS"), [("gemv", 1), ("gemm", 16)])
@pytest.mark.parametrize("code", [-128, 127])
def test_largest_sums(which: str, TOKENS: int, code: int) -> None:
    weight, codes = np.ones((16, 2047), np.int8), np.full((1, 2047), code, np.int8)
    sizes = {"TOKENS": TOKENS, "COLUMNS": 16, "BLOCK_K": 1024}
    made = _products(which, weight, codes, (1, 1), **sizes)
    assert (made == 2 * code * 2047).all()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(("which", "warps", "constants"), COMPILED)
def test_instructions(which: str, warps: int, constants: dict[str, int], architecture: int) -> None:
    shared, tensor_cores = ARCHITECTURES[architecture]
    kernel = native("product_kernels.compiled", which, architecture, warps, constants)
    assert kernel.stack == 0, "registers are spilled"
    assert kernel.shared <= shared * 1024
    if which == "gemv":
        multiply, read = "dp4a.s32.s32", "ld.global.v4.b32"
    else:
        multiply, read = tensor_cores, "cp.async.cg.shared.global"  # cg: of 16 bytes only
    assert multiply in kernel.ptx
    assert set(re.findall(r"cp\.async\.c[ag]\S*|ld\.global\S*", kernel.ptx)) == {read}
