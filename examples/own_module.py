"""Compile a module of your own, compare it with torch, save it, and run the file without torch.

    pip install 'mmfree-compiler[all]'
    python examples/own_module.py block.mmfree

The compiler looks at what a module computes, not at its class names: a BitLinear of your own works
as well as the one imported here.
"""

from __future__ import annotations

import argparse

import torch
from torch import Tensor, nn
from torch.nn.functional import silu

import mmfree_compiler as mmf
from mmfree_compiler.models import BitLinear
from mmfree_compiler.runtime import load

WIDTH = 64


class GatedBlock(nn.Module):
    """x + down(silu(gate(x)) * up(x)), with ternary weights in all three products."""

    def __init__(self, width: int, inner: int) -> None:
        super().__init__()
        self.gate = BitLinear(width, inner)
        self.up = BitLinear(width, inner)
        self.down = BitLinear(inner, width)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = x + self.down(silu(self.gate(x)) * self.up(x))
        return y


def main() -> None:
    parser = argparse.ArgumentParser(description="Compile a module of your own.")
    parser.add_argument("output", help="the file to write, such as block.mmfree")
    path = parser.parse_args().output

    torch.manual_seed(0)
    module = nn.Sequential(GatedBlock(WIDTH, 192), GatedBlock(WIDTH, 192)).eval()
    example = torch.randn(2, 5, WIDTH)  # all dimensions but the last one may change later
    compiled = mmf.compile(module, target="cpu", example_inputs=(example,))
    compiled.save(path)

    x = torch.randn(7, WIDTH)
    with torch.no_grad():
        expected = module(x)
    print(f"compiled, against torch: {(compiled(x) - expected).abs().max():.1e} at most")

    session = load(path)  # in deployment another process, which has no torch
    y = session(x.numpy())
    print(f"loaded, against torch:   {abs(y - expected.numpy()).max():.1e} at most")


if __name__ == "__main__":
    main()
