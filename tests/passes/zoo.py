"""Small modules that spell the same layers in many ways, none of them called BitLinear."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmfree_compiler import ops  # noqa: F401  registers torch.ops.mmfree

EPS, QUANT_EPS = 1e-6, 1e-5

# --- norms: (x, weight) -> rows -----------------------------------------------------------------


def _wide(x: Tensor, w: Tensor) -> Tensor:
    y = x.to(torch.float32)
    return (y * torch.rsqrt(y.pow(2).mean(-1, keepdim=True) + EPS) * w).to(x.dtype)


NORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rsqrt": lambda x, w: x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + EPS) * w,
    "weight first": lambda x, w: w * (x * torch.rsqrt(EPS + (x * x).mean(dim=-1, keepdim=True))),
    "sqrt": lambda x, w: x / torch.sqrt(x.square().mean(-1, keepdim=True) + EPS) * w,
    "reciprocal": lambda x, w: x * (1 / torch.sqrt((x**2).mean(-1, True) + EPS)) * w,
    "power": lambda x, w: w * x * torch.pow(x.square().mean(-1, True) + EPS, -0.5),
    "inverse times weight": lambda x, w: x * (torch.rsqrt(x.pow(2).mean(-1, True) + EPS) * w),
    "unsqueeze": lambda x, w: x * torch.rsqrt(x.pow(2).mean(-1) + EPS).unsqueeze(-1) * w,
    "sum": lambda x, w: x / ((x * x).sum(-1, keepdim=True) / x.shape[-1] + EPS).sqrt() * w,
    "casts": _wide,
    "one op": lambda x, w: F.rms_norm(x, (x.shape[-1],), w, EPS),
}

# --- activation quantizers: x -> rows, dequantized ----------------------------------------------


def _max(x: Tensor) -> Tensor:
    scale = 127.0 / x.abs().max(dim=-1, keepdim=True).values.clamp_(min=QUANT_EPS)
    return (x * scale).round().clamp_(-128, 127) / scale


def _amax(x: Tensor) -> Tensor:
    scale = 127 / x.abs().amax(-1, keepdim=True).clamp(min=QUANT_EPS)
    return (x * scale).round().clamp(-128, 127) / scale


def _max_over_127(x: Tensor) -> Tensor:
    scale = torch.clamp_min(x.abs().amax(dim=-1, keepdim=True), QUANT_EPS) / 127
    return torch.round(x / scale).clamp(-127, 127) * scale


def _clamped_scale(x: Tensor) -> Tensor:
    """The clamp is on max/127, so that the contract's eps is 127 times its number."""
    scale = (x.abs().amax(-1, keepdim=True) / 127).clamp(min=QUANT_EPS / 127)
    return (x / scale).round().clamp(-128, 127) * scale


def _codes(x: Tensor) -> Tensor:
    scale = x.abs().amax(-1).clamp(min=QUANT_EPS).unsqueeze(-1)
    return (x / scale * 127).round().clamp(-128, 127).to(torch.int8).to(x.dtype) * scale / 127


QUANTIZERS: dict[str, Callable[[Tensor], Tensor]] = {
    "max": _max,
    "amax": _amax,
    "max over 127": _max_over_127,
    "clamped scale": _clamped_scale,
    "int8 codes": _codes,
}


class RoundThrough(torch.autograd.Function):
    """The straight-through estimator as an autograd function of rounding."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:  # noqa: ARG004
        return x.round()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> Tensor:  # noqa: ARG004
        return grads[0]


def _rounded_through(x: Tensor) -> Tensor:
    scale = 127 / x.abs().amax(-1, keepdim=True).clamp(min=QUANT_EPS)
    rounded: Tensor = RoundThrough.apply(x * scale)  # type: ignore[no-untyped-call]
    return rounded.clamp(-128, 127) / scale


QUANTIZERS["autograd function"] = _rounded_through

# --- weight quantizers: w -> dequantized --------------------------------------------------------


def by_mean(w: Tensor) -> Tensor:
    scale = 1.0 / w.abs().mean().clamp_(min=1e-5)
    return (w * scale).round().clamp_(-1, 1) / scale


def by_max(w: Tensor) -> Tensor:
    scale = w.abs().amax().clamp(min=1e-5)
    return (w / scale).round().clamp(-1, 1) * scale


WEIGHTS: dict[str, Callable[[Tensor], Tensor]] = {"mean": by_mean, "amax": by_max}

# --- straight-through estimators: (x, q) -> q ---------------------------------------------------

THROUGH: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "x + (q - x)": lambda x, q: x + (q - x).detach(),
    "(q - x) + x": lambda x, q: (q - x).detach() + x,
    "x - x + q": lambda x, q: x + q.detach() - x.detach(),
    "none": lambda x, q: q,  # noqa: ARG005
}


class Proj(nn.Module):
    """A ternary layer made of parts of the tables above."""

    def __init__(
        self,
        width: int,
        out: int,
        norm: str | None = "rsqrt",
        quantizer: str = "max",
        weight: str = "mean",
        through: str = "x + (q - x)",
        bias: bool = False,
    ) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(out, width))
        self.gain = nn.Parameter(1 + 0.2 * torch.randn(width)) if norm else None
        self.shift = nn.Parameter(torch.randn(out)) if bias else None
        self.norm = NORMS[norm] if norm else None
        self.quantizer, self.quantize_weight = QUANTIZERS[quantizer], WEIGHTS[weight]
        self.through = THROUGH[through]

    def operands(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if self.norm is not None:
            assert self.gain is not None
            x = self.norm(x, self.gain)
        w = self.matrix
        return self.through(x, self.quantizer(x)), self.through(w, self.quantize_weight(w))

    def forward(self, x: Tensor) -> Tensor:
        x, w = self.operands(x)
        return F.linear(x, w, self.shift)


class TransposedProj(Proj):
    """`x @ w.T + b` instead of linear."""

    def forward(self, x: Tensor) -> Tensor:
        x, w = self.operands(x)
        out = x @ w.t()
        return out if self.shift is None else out + self.shift


class AddmmProj(Proj):
    """addmm on rows without a time dimension."""

    def forward(self, x: Tensor) -> Tensor:
        x, w = self.operands(x)
        assert self.shift is not None
        return torch.addmm(self.shift, x, w.t())


class PackedProj(nn.Module):
    """Weights that others packed: a ternary buffer; scales are divided out after the product."""

    def __init__(self, width: int, out: int, multiply: bool = False, bias: bool = True) -> None:
        super().__init__()
        self.codes = nn.Buffer(torch.randint(-1, 2, (out, width)).to(torch.int8))
        self.weight_scale = nn.Buffer(torch.tensor([1.7]))
        self.shift = nn.Parameter(torch.randn(out)) if bias else None
        self.multiply = multiply

    def forward(self, x: Tensor) -> Tensor:
        scale = 127 / x.abs().max(dim=-1, keepdim=True).values.clamp(min=QUANT_EPS)
        codes = torch.clamp((x * scale).round(), -128, 127).to(torch.int8)
        out = F.linear(codes.to(x.dtype), self.codes.to(x.dtype))
        if self.multiply:
            out = out / scale * self.weight_scale
        else:
            out = out / (scale * self.weight_scale)
        return out if self.shift is None else out + self.shift


class DequantizedProj(nn.Module):
    """An already ternary float weight; quantizing it again would shrink its scale."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.matrix = nn.Buffer(by_mean(torch.randn(out, width)))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(_amax(x), self.matrix)


class SharedProj(nn.Module):
    """One layer used twice."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = Proj(width, width)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.layer(self.layer(x))
        return out


class PackedBits(nn.Module):
    """Four codes per byte, unpacked by writes into slices, as Hugging Face's BitLinear does."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        self.codes = torch.randint(-1, 2, (out, width)).to(torch.int8)
        fields = (self.codes + 1).to(torch.uint8).reshape(4, out // 4, width)
        self.packed = nn.Buffer(fields[0] | fields[1] << 2 | fields[2] << 4 | fields[3] << 6)
        self.weight_scale = nn.Buffer(torch.tensor(0.8))

    def unpacked(self) -> Tensor:
        rows, width = self.packed.shape
        out = torch.zeros((4 * rows, width), dtype=torch.uint8)
        for field in range(4):
            out[field * rows : (field + 1) * rows] = (self.packed & (3 << 2 * field)) >> 2 * field
        return out.to(torch.float32) - 1

    def forward(self, x: Tensor) -> Tensor:
        scale = 127 / x.abs().max(dim=-1, keepdim=True).values.clamp_(min=QUANT_EPS)
        codes = (x * scale).round().clamp_(-128, 127).to(torch.int8)
        return F.linear(codes.to(x.dtype), self.unpacked()) / (scale * self.weight_scale)
