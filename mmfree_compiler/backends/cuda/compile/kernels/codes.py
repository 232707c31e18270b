"""A row's int8 codes: see ops/quantize.py."""

from __future__ import annotations

import triton
import triton.language as tl

from mmfree_compiler import elementary as e
from mmfree_compiler.backends.cuda.compile.kernels.fp32 import finite_or_nan, nearest
from mmfree_compiler.backends.cuda.compile.kernels.reductions import absmax_bits

_CODE_MAX = tl.constexpr(float(e.CODE_MAX))
_LEAST_PEAK = tl.constexpr(e.LEAST_PEAK)


@triton.jit
def quantized(
    v: tl.tensor, r: tl.tensor, quant_eps: tl.constexpr
) -> tuple[tl.tensor, tl.tensor, tl.tensor]:
    """The codes of v * r, int8 with v's shape, their fp32 scale, and their int32 sum.

    v is a row, or a stack of rows, as in reductions.py; r is its positive factor: fp32, or 1.0.
    Codes of padding are 0. Codes of a row that holds NaN or infinity are 0, and its scale is NaN.
    """
    code, scale = coded(v, absmax_bits(v), r, quant_eps)
    return code, scale, tl.sum(code.to(tl.int32), axis=0)


@triton.jit
def coded(
    v: tl.tensor, peak_bits: tl.tensor, r: tl.tensor, quant_eps: tl.constexpr
) -> tuple[tl.tensor, tl.tensor]:
    """`quantized` without the sum; `peak_bits` is absmax_bits(v)."""
    largest = peak_bits.to(tl.float32, bitcast=True)
    peak = tl.maximum(largest, _LEAST_PEAK, propagate_nan=tl.PropagateNan.ALL)
    smallest = tl.cast(quant_eps, tl.float32)
    absmax = finite_or_nan(peak * r)
    tiny = absmax < smallest
    factor = tl.where(tiny, r * tl.div_rn(_CODE_MAX, smallest), tl.div_rn(_CODE_MAX, peak))
    # |v * factor| <= 127 (1 + 2^-22): rounding cannot leave int8, so there is no clamp.
    code = tl.where(absmax == absmax, nearest(v * factor)[1], 0)
    scale = tl.div_rn(tl.where(tiny, smallest, absmax), _CODE_MAX)
    return code.to(tl.int8), scale
