"""Larger modules made of the zoo's layers, and layers that must not pass for ternary ones."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from zoo import NORMS, QUANT_EPS, QUANTIZERS, Proj, by_mean

# --- what must not match ------------------------------------------------------------------------


class FloatProj(nn.Linear):
    """No quantizer at all."""


class FewBits(Proj):
    """Activations of four bits."""

    def operands(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scale = 7 / x.abs().amax(-1, keepdim=True).clamp(min=QUANT_EPS)
        return (x * scale).round().clamp(-8, 7) / scale, by_mean(self.matrix)


class PerTensor(Proj):
    """One activation scale for all rows."""

    def operands(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scale = 127 / x.abs().max().clamp(min=QUANT_EPS)
        return (x * scale).round().clamp(-128, 127) / scale, by_mean(self.matrix)


class AddedEps(Proj):
    """eps added to the maximum, not a bound of it."""

    def operands(self, x: Tensor) -> tuple[Tensor, Tensor]:
        scale = 127 / (x.abs().amax(-1, keepdim=True) + 1e-2)
        return (x * scale).round().clamp(-128, 127) / scale, by_mean(self.matrix)


class Unquantized(Proj):
    """int8 rows, but a float weight."""

    def operands(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return QUANTIZERS["amax"](x), self.matrix


# --- larger parts -------------------------------------------------------------------------------


class Norm(nn.Module):
    def __init__(self, width: int, spelling: str = "rsqrt") -> None:
        super().__init__()
        self.gain = nn.Parameter(1 + 0.2 * torch.randn(width))
        self.spelling = spelling

    def forward(self, x: Tensor) -> Tensor:
        return NORMS[self.spelling](x, self.gain)


class Mixer(nn.Module):
    """The MLGRU with a lower bound (numerics 7)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.a, self.b, self.c, self.d = (Proj(width, width) for _ in range(4))
        self.inner = Norm(width)

    def forward(self, x: Tensor, bound: Tensor | None = None) -> Tensor:
        i, f, g = self.a(x), self.b(x), self.c(x)
        forget = f.sigmoid() if bound is None else bound + (1 - bound) * f.sigmoid()
        h = torch.ops.mmfree.mlgru_scan(F.silu(i) * (1 - forget), forget, None)
        out: Tensor = self.d(self.inner(g) * h * torch.sigmoid(h))
        return out


class Gated(nn.Module):
    """The gated unit (numerics 8)."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.up, self.down = Proj(width, 2 * inner), Proj(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        gate, up = self.up(x).chunk(2, -1)
        out: Tensor = self.down(F.silu(gate) * up)
        return out


class Tiny(nn.Module):
    """Two layers of a language model, with lower bounds; logits (B, T, vocab)."""

    def __init__(self, vocab: int = 40, width: int = 16, layers: int = 2) -> None:
        super().__init__()
        self.table = nn.Embedding(vocab, width)
        self.bounds = nn.Parameter(torch.randn(layers, width))
        self.mixers = nn.ModuleList(Mixer(width) for _ in range(layers))
        self.gated = nn.ModuleList(Gated(width, 24) for _ in range(layers))
        self.norms = nn.ModuleList(Norm(width) for _ in range(2 * layers + 1))
        self.head = Proj(width, vocab)

    def forward(self, tokens: Tensor) -> Tensor:
        share = self.bounds.softmax(0)
        bounds = share.cumsum(0) - share[0]
        x = self.table(tokens)
        for k, (mixer, gated) in enumerate(zip(self.mixers, self.gated, strict=True)):
            x = x + mixer(self.norms[2 * k](x), bounds[k])
            x = x + gated(self.norms[2 * k + 1](x))
        logits: Tensor = self.head(self.norms[-1](x))
        return logits


class Narrow(nn.Module):
    """A layer that computes in bf16."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = Gated(16, 8).bfloat16()

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(x.bfloat16())
        return out.float()
