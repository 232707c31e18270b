"""Every op of the FPGA backend has the bits of its reference, on rows that go wrong first."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from op_modules import Products, SmallLM, TinyLM, integer_rows, mm
from special_values import Pointwise, Rows, assert_same_bits, forced_rows, pairs
from torch import Tensor, nn

import mmfree_compiler as mmf
from mmfree_compiler import backends
from mmfree_compiler.errors import TargetError, UnsupportedError
from mmfree_compiler.ops import OPS
from mmfree_compiler.runtime import Session

BOARDS = ["d5005", "kv260,density=2", "ecp5-85"]
every_board = pytest.mark.parametrize("board", BOARDS)


def test_every_op_is_lowered() -> None:
    compound = {name for name, op in OPS.items() if op.kind == "compound"}
    assert OPS.keys() - compound == backends.get("fpga").compiler().ops


@pytest.mark.parametrize("width", [1, 48, 129])
def test_pointwise(width: int) -> None:
    module, (x, y) = Pointwise(), pairs(width)
    got = mmf.compile(module, "fpga", example_inputs=(x[:2], y[:2]), check=False)(x, y)
    for name, a, b in zip(module.names, got, module(x, y), strict=True):
        assert_same_bits(a, b, name, x, y)


@pytest.mark.parametrize("width", [1, 17, 129, 2047])
def test_rows(width: int) -> None:
    module, x = Rows(width), forced_rows(width)
    h = x.flip(0)
    compiled = mmf.compile(module, "fpga", example_inputs=(x[:2], h[:2]), check=False)
    for k, (a, b) in enumerate(zip(compiled(x, h), module(x, h), strict=True)):
        assert_same_bits(a, b, f"output {k} of {width} columns", x)


@every_board
def test_integer_sums_are_exact(board: str) -> None:
    """Rows of integers with absmax 127 are their own codes, of scale 1: outputs are the sums."""
    module, rows = Products(), integer_rows(5)
    compiled = mmf.compile(module, f"fpga:{board}", example_inputs=tuple(rows), check=False)
    for got, expected in zip(compiled(*rows), module.exact(*rows), strict=True):
        assert np.array_equal(got.numpy(), expected.numpy())


@every_board
@pytest.mark.parametrize("model", [TinyLM, SmallLM])
def test_models_of_odd_widths(board: str, model: type[nn.Module]) -> None:
    ids = torch.randint(37, (3, 9), generator=torch.Generator().manual_seed(0))
    targets = ("reference", f"fpga:{board}")
    artifact = mmf.compile(model(), targets, example_inputs=(ids,)).artifact
    expected, got = (Session(artifact, target=kind)(ids)[0] for kind in ("reference", "fpga"))
    assert np.array_equal(got, expected)


class Convolution(nn.Module):
    """A short convolution with a bias, in front of one that every layer has."""

    def __init__(self, width: int, taps: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.weight = torch.randn(width, taps, generator=generator)
        self.bias = torch.randn(width, generator=generator)

    def forward(self, x: Tensor) -> Tensor:
        return mm.short_conv(mm.short_conv(x, self.weight, self.bias), self.weight, None)  # type: ignore[no-any-return]


@pytest.mark.parametrize("taps", [1, 2, 5])
def test_convolutions_in_chunks_and_batches(taps: int) -> None:
    module, x = Convolution(23, taps), torch.randn(3, 150, 23)
    compiled = mmf.compile(module, "fpga:ecp5-85", example_inputs=(x,))
    assert_same_bits(compiled(x), module(x), "short_conv")


class Weighted(nn.Module):
    """A norm whose weight is computed."""

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        return mm.rms_norm(x, w, 1e-6)  # type: ignore[no-any-return]


def test_what_the_machine_has_not() -> None:
    rows = torch.randn(2, 8)
    with pytest.raises(UnsupportedError, match="the machine needs a constant row"):
        mmf.compile(Weighted(), "fpga", example_inputs=(rows, rows), check=False)


class Wide(nn.Module):
    """Rows that no scratch memory holds."""

    def forward(self, x: Tensor) -> Tensor:
        return mm.exp(x)  # type: ignore[no-any-return]


def test_rows_that_the_board_cannot_hold() -> None:
    with pytest.raises(TargetError, match="board 'ecp5-85': has 256 KiB for rows"):
        mmf.compile(Wide(), "fpga:ecp5-85", example_inputs=(torch.randn(2, 1 << 17),), check=False)
