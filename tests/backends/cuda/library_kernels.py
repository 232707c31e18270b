"""Kernels around the device library: only the processes of triton_process.py import this."""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from special_values import BINARY, UNARY
from torch import Tensor
from triton import knobs

from mmfree_compiler.backends.cuda.compile.kernels import codes, functions, reductions, rows

EPS, QUANT_EPS = tl.constexpr(1e-6), tl.constexpr(1e-5)
# The interpreter is fast on large blocks, a GPU has them in registers.
DEVICE, COLUMNS, ROWS = ("cpu", 2**16, 256) if knobs.runtime.interpret else ("cuda", 1024, 2)
FUNCTIONS = {
    which: tuple(getattr(functions, name) for name in names)
    for which, names in {"ONE": UNARY, "TWO": BINARY}.items()
}


@triton.jit
def every_function(
    x: tl.tensor,
    y: tl.tensor,
    z: tl.tensor,
    out: tl.tensor,
    ONE: tl.constexpr,
    TWO: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """In `out`, (functions, N): those of one operand, of two, and of three."""
    N, i = tl.num_programs(0) * BLOCK, tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    a, b, c = tl.load(x + i), tl.load(y + i), tl.load(z + i)
    for k in tl.static_range(len(ONE)):
        tl.store(out + k * N + i, ONE[k](a))
    to = out + len(ONE) * N + i
    for k in tl.static_range(len(TWO)):
        tl.store(to + k * N, TWO[k](a, b))
    to += len(TWO) * N
    unbounded, bounded = functions.gates_unbounded(a, b), functions.gates(a, b, c)
    tl.store(to, unbounded[0])
    tl.store(to + N, unbounded[1])
    tl.store(to + 2 * N, bounded[0])
    tl.store(to + 3 * N, bounded[1])
    tl.store(to + 4 * N, functions.scan_step(a, b, c))


@triton.jit
def stacks(
    x: tl.tensor,
    h: tl.tensor,
    weights: tl.tensor,
    out: tl.tensor,
    q: tl.tensor,
    scales: tl.tensor,
    sums: tl.tensor,
    M: tl.constexpr,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
    ROWS: tl.constexpr,
) -> None:
    """On stacks of ROWS rows: rms_norm, gated_norm, quantize, norm_quant without and with `outer`.

    `weights` are (2, K): those of an outer and of an inner norm.
    """
    k, m = tl.arange(0, BLOCK)[:, None], tl.program_id(0) * ROWS + tl.arange(0, ROWS)
    at, inside = m * K + k, (k < K) & (m < M)
    row, other = tl.load(x + at, mask=inside, other=0.0), tl.load(h + at, mask=inside, other=0.0)
    outer = tl.load(weights + k, mask=k < K, other=0.0)
    inner = tl.load(weights + K + k, mask=k < K, other=0.0)
    mean = reductions.mean_square(row, K)
    tl.store(out + at, rows.rms_normed(row, mean, EPS, inner), mask=inside)
    gated = rows.gated(row, mean, EPS, inner, functions.silu(other))
    tl.store(out + M * K + at, gated, mask=inside)

    normed = row * outer
    before, after = reductions.mean_square(row, K), reductions.mean_square(normed, K)
    one, both = rows.inverse_of_one(before, EPS), rows.inverse_of_both(before, after, EPS, EPS)
    made = (
        codes.quantized(row, 1.0, QUANT_EPS),
        codes.quantized(row * inner, one, QUANT_EPS),
        codes.quantized(normed * inner, both, QUANT_EPS),
        codes.quantized(normed * outer, both, QUANT_EPS),
    )
    for n in tl.static_range(4):
        tl.store(q + n * M * K + at, made[n][0], mask=inside)
        tl.store(scales + n * M + m, made[n][1], mask=m < M)
        tl.store(sums + n * M + m, made[n][2], mask=m < M)


@triton.jit
def single(
    x: tl.tensor,
    weights: tl.tensor,
    out: tl.tensor,
    q: tl.tensor,
    scales: tl.tensor,
    sums: tl.tensor,
    K: tl.constexpr,
    BLOCK: tl.constexpr,
) -> None:
    """One row for each program: rms_norm, center, norm_quant with `outer` for two."""
    m, M, k = tl.program_id(0), tl.num_programs(0), tl.arange(0, BLOCK)
    row = tl.load(x + m * K + k, mask=k < K, other=0.0)
    outer = tl.load(weights + k, mask=k < K, other=0.0)
    inner = tl.load(weights + K + k, mask=k < K, other=0.0)
    normed = rows.rms_normed(row, reductions.mean_square(row, K), EPS, inner)
    tl.store(out + m * K + k, normed, mask=k < K)
    tl.store(out + (M + m) * K + k, rows.centered(row, K), mask=k < K)

    normed = row * outer
    before, after = tl.split(reductions.mean_square(tl.join(row, normed), K))
    both = rows.inverse_of_both(before, after, EPS, EPS)
    pair = tl.join(normed * inner, normed * outer)
    made = codes.quantized(pair, both, QUANT_EPS)
    found, scale, total = tl.split(made[0]), tl.split(made[1]), tl.split(made[2])
    for n in tl.static_range(2):
        tl.store(q + (n * M + m) * K + k, found[n], mask=k < K)
        tl.store(scales + n * M + m, scale[n])
        tl.store(sums + n * M + m, total[n])


def _launched(
    kernel: Any, programs: int, inputs: tuple[Tensor, ...], outputs: list[Tensor], **constants: Any
) -> list[Tensor]:
    there = [t.to(DEVICE).contiguous() for t in (*inputs, *outputs)]
    kernel[(programs,)](*there, **constants, enable_fp_fusion=False)
    return [t.cpu() for t in there[len(inputs) :]]


def _codes(count: int, M: int, K: int) -> list[Tensor]:
    """Room for codes, scales, and sums of codes."""
    scales = torch.empty(count, M)
    return [torch.empty(count, M, K, dtype=torch.int8), scales, scales.to(torch.int32)]


def pointwise(*operands: Tensor) -> Tensor:
    """`every_function` of three operands (2^16,)."""
    N = len(operands[0])
    out = torch.empty(len(UNARY) + len(BINARY) + 5, N)
    constants = {**FUNCTIONS, "BLOCK": COLUMNS}
    return _launched(every_function, N // COLUMNS, operands, [out], **constants)[0]


def stacked(x: Tensor, h: Tensor, weights: Tensor) -> list[Tensor]:
    """norms (2, M, K), codes (4, M, K), scales (4, M), sums (4, M) of `stacks`."""
    M, K = x.shape
    sizes = {"M": M, "K": K, "BLOCK": triton.next_power_of_2(K), "ROWS": ROWS}
    outputs = [torch.empty(2, M, K), *_codes(4, M, K)]
    return _launched(stacks, triton.cdiv(M, ROWS), (x, h, weights), outputs, **sizes)


def one_by_one(x: Tensor, weights: Tensor) -> list[Tensor]:
    """rms_norm and center (2, M, K), codes (2, M, K), scales (2, M), sums (2, M) of `single`."""
    M, K = x.shape
    outputs = [torch.empty(2, M, K), *_codes(2, M, K)]
    return _launched(single, M, (x, weights), outputs, K=K, BLOCK=triton.next_power_of_2(K))
