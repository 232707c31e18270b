"""Ops that need whole rows: the embedding, norms, quantizers and ternary products."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmfree_compiler.ops.table import like_first, op


@op("gather", lambda ids, table: table.new_empty((*ids.shape, table.shape[1]), dtype=torch.float32))
def embedding(ids: Tensor, table: Tensor) -> Tensor:
    """`table[ids]` widened to fp32: ids (...) int64, table (V, D) of any float dtype."""
    return F.embedding(ids, table).float()


@op("row", like_first)
def rms_norm(x: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`x / sqrt(mean(x^2) + eps) * weight`."""
    return x / torch.sqrt(x.square().mean(-1, keepdim=True) + eps) * weight


def _gated_norm_fake(g: Tensor, h: Tensor, weight: Tensor, eps: float) -> Tensor:
    return like_first(g)


@op("row", _gated_norm_fake)
def gated_norm(g: Tensor, h: Tensor, weight: Tensor, eps: float) -> Tensor:
    """`rms_norm(g, weight, eps) * h * sigmoid(h)`: norm on g, swish on h (numerics 7)."""
    normed: Tensor = rms_norm(g, weight, eps)
    return normed * F.silu(h)


def _codes_like(x: Tensor) -> list[Tensor]:
    scale = x.new_empty((*x.shape[:-1], 1), dtype=torch.float32)
    return [torch.empty_like(x, dtype=torch.int8), scale]


@op("row", lambda x, quant_eps: _codes_like(x))
def quantize(x: Tensor, quant_eps: float) -> list[Tensor]:
    """Per-token absmax int8: [codes (..., K) int8, scale (..., 1) fp32], `x ~ codes * scale`.

    With `a = 127 / max(max|x|, quant_eps)`: codes are `clamp(round_half_even(x * a), -128, 127)`,
    the scale is `1 / a`.
    """
    absmax = x.abs().amax(-1, keepdim=True).clamp(min=quant_eps)
    return [(x * (127 / absmax)).round().clamp(-128, 127).to(torch.int8), absmax / 127]


def _norm_quant_fake(
    x: Tensor,
    outer: Tensor | None,
    outer_eps: float,
    inners: list[Tensor],
    inner_eps: float,
    quant_eps: float,
) -> list[Tensor]:
    return [tensor for _ in inners for tensor in _codes_like(x)]


@op("row", _norm_quant_fake)
def norm_quant(
    x: Tensor,
    outer: Tensor | None,
    outer_eps: float,
    inners: list[Tensor],
    inner_eps: float,
    quant_eps: float,
) -> list[Tensor]:
    """Norm, norm and quantize for several consumers: [codes, scale] for each of `inners`.

    `u = rms_norm(x, outer, outer_eps)` (or x when `outer` is None), then for each inner weight
    `quantize(rms_norm(u, inner, inner_eps), quant_eps)`. Backends may use one reduction for all.
    """
    u = x if outer is None else rms_norm(x, outer, outer_eps)
    return [t for w in inners for t in quantize(rms_norm(u, w, inner_eps), quant_eps)]


def _bit_linear_fake(x: Tensor, weight: Tensor, bias: Tensor | None, quant_eps: float) -> Tensor:
    return x.new_empty((*x.shape[:-1], weight.shape[0]), dtype=torch.float32)


@op("compound", _bit_linear_fake)
def bit_linear(x: Tensor, weight: Tensor, bias: Tensor | None, quant_eps: float) -> Tensor:
    """Fake-quantized x times a dequantized ternary weight (N, K). `ternarize` takes it apart."""
    codes, scale = quantize(x, quant_eps)
    return F.linear(codes * scale, weight.float(), bias)


def _ternary_linear_fake(
    codes: Tensor, scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None
) -> Tensor:
    return codes.new_empty((*codes.shape[:-1], weight.shape[0]), dtype=torch.float32)


@op("linear", _ternary_linear_fake)
def ternary_linear(
    codes: Tensor, scale: Tensor, weight: Tensor, weight_scale: Tensor, bias: Tensor | None
) -> Tensor:
    """`sum_k codes_k * weight_nk` as an exact integer, times `scale * weight_scale`, plus bias.

    codes (..., K) int8, scale (..., 1), weight (N, K) int8 in {-1, 0, 1}, weight_scale (1,) fp32.
    fp32 holds the sum exactly for K <= 65536 (numerics 5); float64 is used to hold it for any K.
    """
    total = F.linear(codes.double(), weight.double()).float()
    out = total * (scale * weight_scale)
    return out if bias is None else out + bias
