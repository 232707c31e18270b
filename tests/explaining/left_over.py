"""Modules in which a product of float matrices is left on purpose."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmfree_compiler.models.modules import BitLinear

WIDTH = 32


def rows(*sizes: int) -> Tensor:
    return torch.randn(*sizes, WIDTH, generator=torch.Generator().manual_seed(0))


class LeftOver(nn.Module):
    """A float linear layer between two BitLinears."""

    def __init__(self) -> None:
        super().__init__()
        self.first = BitLinear(WIDTH, WIDTH)
        self.plain = nn.Linear(WIDTH, WIDTH)
        self.last = BitLinear(WIDTH, 16)

    def forward(self, x: Tensor) -> Tensor:
        y = self.plain(self.first(x))  # the product that is left
        out: Tensor = self.last(torch.relu(y))
        return out


class Branching(LeftOver):
    """It cannot be traced. Each call is counted."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += 1
        return super().forward(x + 1 if x.sum() > 0 else x)


class Attending(nn.Module):
    """A product of rows with rows, which no weight is part of."""

    def __init__(self) -> None:
        super().__init__()
        self.first = BitLinear(WIDTH, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        y = self.first(x)
        out: Tensor = y @ y.transpose(-1, -2) @ y
        return out
