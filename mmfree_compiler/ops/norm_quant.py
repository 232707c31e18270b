"""Row op `norm_quant`: norms and quantizers that read one row."""

from __future__ import annotations

from torch import Tensor

from mmfree_compiler.ops.quantize import codes_like, quantize
from mmfree_compiler.ops.register import op
from mmfree_compiler.ops.rms_norm import rms_norm


def _fake(
    x: Tensor, outer: Tensor | None, outer_eps: float, inners: list[Tensor], *_: float
) -> list[Tensor]:
    return [tensor for _ in inners for tensor in codes_like(x)]


@op("row", _fake)
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
