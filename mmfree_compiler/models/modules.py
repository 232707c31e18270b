"""The layers of the MatMul-free LM in plain torch, written out as in docs/numerics.md.

Shapes: B batch, T time, D `hidden_size`, I `state_size`. Activations are fp32; parameters may be
stored in any float dtype and are widened where they are used.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

import mmfree_compiler.ops  # noqa: F401 - registers torch.ops.mmfree
from mmfree_compiler.models.config import NORM_EPS, ModelConfig

QUANT_EPS = 1e-5
_SAMPLE = 4096  # elements
# The state of one layer: the inputs that its short convolutions still need, in the order of the
# computation, each (B, conv_size, width), then the recurrence's last h (B, I).
LayerState = tuple[Tensor, ...]


class RMSNorm(nn.Module):
    """`x / sqrt(mean(x^2) + eps) * weight` over the last dimension (numerics 3)."""

    def __init__(self, width: int, eps: float = NORM_EPS) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Tensor) -> Tensor:
        return x / torch.sqrt(x.square().mean(-1, keepdim=True) + self.eps) * self.weight.float()


def quantize_activations(x: Tensor) -> Tensor:
    """Per-token absmax int8, dequantized: x (..., K) fp32 (numerics 5)."""
    scale = 127 / x.abs().amax(-1, keepdim=True).clamp(min=QUANT_EPS)
    return (x * scale).round().clamp(-128, 127) / scale


def quantize_weight(weight: Tensor) -> Tensor:
    """Ternary by mean |w|, dequantized: weight (N, K) fp32, one scale per tensor (numerics 4)."""
    scale = 1 / weight.abs().mean().clamp(min=QUANT_EPS)
    # In place: memory for each step's result would take longer than the step.
    return (weight * scale).round_().clamp_(-1, 1).div_(scale)


def straight_through(x: Tensor, quantize: Callable[[Tensor], Tensor]) -> Tensor:
    """`quantize(x)`, in training with the gradient of x."""
    with torch.no_grad():
        quantized = quantize(x)
    return x + (quantized - x).detach() if torch.is_grad_enabled() else quantized


def is_ternary(weight: Tensor) -> bool:
    """Whether a weight has no values but -c, 0 and c: it was quantized before it was stored."""
    for part in (weight.flatten()[:_SAMPLE], weight):  # the first of them tell most weights apart
        sizes = part.abs()
        if not bool(((sizes == 0) | (sizes == sizes.max())).all()):
            return False
    return True


class BitLinear(nn.Module):
    """Linear layer on normalized int8 activations and ternary weights: (..., K) -> (..., N).

    Both quantizers pass gradients straight through.

    A weight that is loaded and is ternary already is `taken_as_is`: quantizing it again would
    shrink its scale (numerics 4). Training it quantizes it again.
    """

    def __init__(self, in_features: int, out_features: int, bias: bool = False) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        self.bias = nn.Parameter(torch.zeros(out_features)) if bias else None
        self.norm = RMSNorm(in_features)
        self.taken_as_is = False
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.taken_as_is = not self.weight.is_meta and is_ternary(self.weight.detach())

    def train(self, mode: bool = True) -> Self:
        """Set the mode; a weight that is trained does not stay ternary."""
        self.taken_as_is = self.taken_as_is and not mode
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        y = straight_through(self.norm(x), quantize_activations)
        w = self.weight.float()
        if not self.taken_as_is:
            w = straight_through(w, quantize_weight)
        return F.linear(y, w, None if self.bias is None else self.bias.float())


class ShortConvolution(nn.Module):
    """Depthwise causal convolution, then silu: (B, T, width) -> the same (numerics 10)."""

    def __init__(self, width: int, taps: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(width, 1, taps))
        nn.init.kaiming_uniform_(self.weight, a=5**0.5)

    def forward(
        self, x: Tensor, state: Tensor | None, mask: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Returns the output and the state after it, the last `taps` inputs (B, taps, width).

        Padded inputs (mask 0) count as zeros, as if the sequence began after them.
        """
        taps = self.weight.shape[2]
        x = x if mask is None else x * mask
        before = x.new_zeros(x.shape[0], taps, x.shape[2]) if state is None else state
        y: Tensor = torch.ops.mmfree.short_conv(x, self.weight.float().squeeze(1), None, before)
        return F.silu(y), torch.cat([before, x], dim=1)[:, -taps:]


class MLGRU(nn.Module):
    """The token mixer: a gated linear recurrence without matrix products (numerics 7).

    Heads are a view of the state, (B, H, I/H); the recurrence is elementwise and ignores them.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        hidden, inner, taps = config.hidden_size, config.state_size, config.conv_size
        self.i_proj = BitLinear(hidden, inner)
        self.f_proj = BitLinear(hidden, inner)
        self.g_proj = BitLinear(hidden, inner)
        self.g_norm = RMSNorm(inner, config.rms_norm_eps)
        self.o_proj = BitLinear(inner, hidden)
        self.share_conv = config.use_short_conv and config.share_conv_kernel
        self.separate_conv = config.use_short_conv and not config.share_conv_kernel
        if self.share_conv:
            self.h_conv1d = ShortConvolution(hidden, taps)
        if self.separate_conv:
            self.q_conv1d = ShortConvolution(inner, taps)  # in the checkpoints, never used
            self.i_conv1d = ShortConvolution(inner, taps)
            self.f_conv1d = ShortConvolution(inner, taps)

    def forward(
        self,
        x: Tensor,
        state: LayerState | None = None,
        lower_bound: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> tuple[Tensor, LayerState]:
        """x (B, T, D), lower_bound (I,), mask (B, T, 1) -> output (B, T, D) and the state after."""
        *before, h0 = state or (None, None, None)  # at most two convolutions keep a state
        after: list[Tensor] = []
        if self.share_conv:
            x, last = self.h_conv1d(x, before[0], mask)
            after.append(last)
        i, f, g = self.i_proj(x), self.f_proj(x), self.g_proj(x)
        if self.separate_conv:
            i, last_i = self.i_conv1d(i, before[0], mask)
            f, last_f = self.f_conv1d(f, before[1], mask)
            after += [last_i, last_f]
        forget = torch.sigmoid(f)
        if lower_bound is not None:
            forget = lower_bound + (1 - lower_bound) * forget
        c = F.silu(i) * (1 - forget)
        if mask is not None:
            c = c * mask
        h = torch.ops.mmfree.mlgru_scan(c, forget, h0)
        return self.o_proj(self.g_norm(g) * F.silu(h)), (*after, h[:, -1])


class GLU(nn.Module):
    """The channel mixer: `down(silu(gate) * up)` (numerics 8): (..., D) -> (..., D)."""

    def __init__(self, hidden_size: int, intermediate_size: int) -> None:
        super().__init__()
        self.gate_proj = BitLinear(hidden_size, 2 * intermediate_size)
        self.down_proj = BitLinear(intermediate_size, hidden_size)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.gate_proj(x).chunk(2, dim=-1)
        down: Tensor = self.down_proj(F.silu(gate) * up)
        return down
