"""Row op `norm_quant`: norms and quantizers that read one row."""

from __future__ import annotations

import torch
from torch import Tensor

from mmfree_compiler.ops.quantize import codes_like, quantize_scaled
from mmfree_compiler.ops.register import op
from mmfree_compiler.ops.statistics import mean_square, rstd


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
    `quantize(rms_norm(u, inner, inner_eps), quant_eps)`. What the norms divide by is a factor of
    the whole row, which the codes do not depend on: it enters the scale alone, but for rows that
    are smaller than `quant_eps`.
    """
    if outer is None:
        u, r = x, rstd(mean_square(x), inner_eps)
    else:
        u = x * outer
        r = _rstd_of_both(mean_square(x), mean_square(u), outer_eps, inner_eps)
    return [t for w in inners for t in quantize_scaled(u * w, r, quant_eps)]


def _rstd_of_both(before: Tensor, after: Tensor, outer_eps: float, inner_eps: float) -> Tensor:
    """Of a norm after a norm: `after` is the mean square with the outer norm's weight, without its
    factor r. So `r^2 * after` is what the inner norm finds. NaN if only that overflows.
    """
    outer = rstd(before, outer_eps)
    normed = outer * outer * after
    inner = rstd(normed.where(normed.isfinite(), torch.nan), inner_eps)
    return torch.where(outer == 0, outer, outer * inner)
