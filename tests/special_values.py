"""Values at which fp32 arithmetic goes wrong first, and modules that meet them in every op."""

from __future__ import annotations

import numpy as np
import torch
from op_modules import mm
from torch import Tensor, nn

from mmfree_compiler.ops import OPS

_MAGNITUDES = [
    *(0.0, 1e-45, 1e-40, 1.1754944e-38, 1e-20, 0.1, 0.6249999, 0.625, 1.0, 1.5),
    *(87.336, 88.0, 88.3762, 88.5, 88.72283, 88.72284, 89.0, 103.9, 104.0, 105.0),
    *(1e10, 1.8446744e19, 1e30, 1.7014118e38, 3.4028235e38, float("inf")),
]
SPECIAL = torch.tensor([*_MAGNITUDES, *(-x for x in _MAGNITUDES), float("nan")])
FINITE = SPECIAL[SPECIAL.isfinite()]

# The pointwise ops of one operand, and of two.
UNARY, BINARY = (
    [name for name, op in OPS.items() if op.kind == "pointwise" and len(op.parameters) == operands]
    for operands in (1, 2)
)


def bit_patterns(count: int, seed: int = 0) -> Tensor:
    """fp32 numbers of random bits: every exponent is equally likely, NaN included."""
    bits = np.random.default_rng(seed).integers(0, 2**32, count, dtype=np.uint32)
    return torch.from_numpy(bits.view(np.float32))


def pairs(width: int) -> tuple[Tensor, Tensor]:
    """Rows of `width`: special values against all of them, then 100,000 random bit patterns."""
    x, y = torch.cartesian_prod(SPECIAL, SPECIAL).T
    count = -(-(x.numel() + 100_000) // width) * width
    random = [bit_patterns(count - x.numel(), seed) for seed in (1, 2)]
    return tuple(torch.cat(both).view(-1, width) for both in zip((x, y), random, strict=True))  # type: ignore[return-value]


def forced_rows(width: int) -> Tensor:
    """Zeros of both signs, denormals, huge values, single outliers, every size, random bits."""
    generator = torch.Generator().manual_seed(width)
    normal = torch.randn(1024, width, generator=generator)  # some codes fall on a .5 edge
    sizes = torch.tensor([10.0**k for k in range(-45, 38)]).float()
    sized = normal[torch.arange(len(sizes)) % 64] * sizes[:, None]
    outliers = normal[:8].clone()
    outliers[:, -1] = torch.tensor([1e30, -3.4028235e38, 1e-45, 1e4, -1e19, 1.9e19, 65504.0, -1e5])
    signed = torch.stack([torch.zeros(width), -torch.zeros(width), normal[0] * 0])
    ties = (torch.arange(width) % 255 - 127).float()[None] * torch.tensor([[0.5], [1.0], [1.5]])
    broken = normal[:6].clone()
    broken[:3, 0] = broken[3:, -1] = torch.tensor([float("nan"), float("inf"), -float("inf")])
    random = bit_patterns(8 * width, seed=width).view(8, width)
    finite = random.where(random.isfinite(), 1.0)
    return torch.cat([normal, sized, outliers, signed, ties, broken, random, finite])


class Pointwise(nn.Module):
    """Every pointwise op; `names` are those of the outputs."""

    names = (*UNARY, *BINARY, "c", "forget")

    def forward(self, x: Tensor, y: Tensor) -> list[Tensor]:
        unary = [getattr(mm, name)(x) for name in UNARY]
        return [*unary, *(getattr(mm, name)(x, y) for name in BINARY), *mm.mlgru_gates(x, y, None)]


class Rows(nn.Module):
    """Every op of rows, quantizers seen through an identity weight."""

    def __init__(self, width: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(2)
        self.w, self.outer, self.inner = torch.rand(3, width, generator=generator) + 0.5
        self.eye, self.one = torch.eye(width, dtype=torch.int8), torch.ones(1)

    def forward(self, x: Tensor, h: Tensor) -> list[Tensor]:
        single = mm.quantize(x, 1e-5)
        pair = mm.norm_quant(x, self.outer, 1e-6, [self.w, self.inner], 1e-6, 1e-5)
        alone = mm.norm_quant(x, None, 0.0, [self.inner], 1e-6, 1e-5)
        codes = [single, pair[:2], pair[2:], alone]
        products = [mm.ternary_linear(q, scale, self.eye, self.one, None) for q, scale in codes]
        norms = [mm.rms_norm(x, self.w, 1e-6), mm.gated_norm(x, h, self.w, 1e-6)]
        return [*norms, mm.center(x), *products]


def assert_same_bits(got: Tensor, expected: Tensor, name: str, *inputs: Tensor) -> None:
    """Equal to the bit, the sign of zero included; every NaN equals every other."""
    same = (got.view(torch.int32) == expected.view(torch.int32)) | (got.isnan() & expected.isnan())
    first = [t[~same][:3].tolist() for t in (*inputs, got, expected)]
    assert same.all(), f"{name}: {first[:-2]} gave {first[-2]}, not {first[-1]}"
