"""Every op of the ONNX target has the bits of its reference, optimized by ONNX Runtime or not."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx_sessions import compiled, levels, opened, targets
from op_modules import SHAPES, Products, integer_rows, mm
from special_values import Pointwise, Rows, assert_same_bits, forced_rows, pairs
from torch import Tensor, nn

from mmfree_compiler import backends
from mmfree_compiler.backends.onnx.run.engine import OPTIMIZATIONS
from mmfree_compiler.compiled_model import CompiledModel
from mmfree_compiler.errors import TargetError
from mmfree_compiler.ops import OPS

WIDTH = 37  # some whole vectors, and a rest
# One block, the last column of one, one more, several: a block has 127 columns. Of 512, 4 are in
# no block.
WIDTHS = (1, 17, 127, 128, 512, 2047)


class Apply(nn.Module):
    """A function as a module."""

    def __init__(self, function: Callable[..., object]) -> None:
        super().__init__()
        self.function = function

    def forward(self, *rows: Tensor) -> object:
        return self.function(*rows)


@cache
def pointwise(target: str) -> CompiledModel:
    return compiled(target, Pointwise(), torch.ones(4, WIDTH), torch.ones(4, WIDTH))


@cache
def rows(target: str, width: int) -> CompiledModel:
    return compiled(target, Rows(width), torch.ones(2, width), torch.ones(2, width))


def test_every_op_is_lowered() -> None:
    compound = {name for name, op in OPS.items() if op.kind == "compound"}
    assert OPS.keys() - compound == backends.get("onnx").compiler().ops


@targets
@levels
def test_pointwise_ops(target: str, level: str) -> None:
    """Special values in every pair and place, and 100,000 random bit patterns."""
    session, module, (x, y) = opened(pointwise(target), level), Pointwise(), pairs(WIDTH)
    for name, a, b in zip(module.names, session(x, y), module(x, y), strict=True):
        assert_same_bits(a, b, name, x, y)


@targets
@levels
@pytest.mark.parametrize("width", WIDTHS)
def test_rows(target: str, level: str, width: int) -> None:
    """Norms and quantizers on rows that go wrong first, in one call and one by one."""
    session, x = opened(rows(target, width), level), forced_rows(width)
    h = x.flip(0)
    expected = Rows(width)(x, h)
    for k, (a, b) in enumerate(zip(session(x, h), expected, strict=True)):
        assert_same_bits(a, b, f"output {k} of {width} columns", x)
    for row in range(0, len(x), 29):
        for a, b in zip(session(x[[row]], h[[row]]), expected, strict=True):
            assert_same_bits(a, b[[row]], f"row {row} of {width} columns", x[[row]])


@targets
def test_integer_sums_are_exact(target: str) -> None:
    """Rows of integers with absmax 127 are their own codes, of scale 1: outputs are the sums."""
    module, inputs = Products(), integer_rows(5)
    model = compiled(target, module, *inputs)
    for level in OPTIMIZATIONS:
        for a, b in zip(opened(model, level)(*inputs), module.exact(*inputs), strict=True):
            assert torch.equal(a, b.float()), level


@targets
def test_a_scan_and_a_convolution(target: str) -> None:
    """Several sequences, with a bias and without."""
    generator = torch.Generator().manual_seed(0)
    taps, bias = torch.randn(WIDTH, 4, generator=generator), torch.ones(WIDTH) * 0.1

    def both(x: Tensor, f: Tensor) -> list[Tensor]:
        filtered = [mm.short_conv(x, taps, bias), mm.short_conv(x, taps, None)]
        return [*filtered, mm.mlgru_scan(x, mm.sigmoid(f))]

    module = Apply(both)
    x, f = torch.randn(2, 3, 9, WIDTH, generator=generator)
    model = compiled(target, module, x, f)
    for level in OPTIMIZATIONS:
        for k, (a, b) in enumerate(zip(opened(model, level)(x, f), both(x, f), strict=True)):
            assert_same_bits(a, b, f"output {k} with optimizations {level}")


@targets
def test_nothing_is_fused_into_other_bits(target: str) -> None:
    """What ONNX Runtime's optimizations look for: quotients, norms, SiLU, a bias of a product."""
    weight, bias = torch.eye(WIDTH, dtype=torch.int8), torch.rand(WIDTH)

    def chains(x: Tensor, y: Tensor) -> list[Tensor]:
        codes, scale = mm.quantize(x, 1e-5)
        product = mm.ternary_linear(codes, scale, weight, torch.ones(1), bias)
        quotient = mm.mul(x, mm.reciprocal(y))
        return [product, quotient, mm.mul(x, mm.sigmoid(x)), mm.sub(mm.add(x, y), y)]

    examples = torch.ones(4, WIDTH), torch.ones(4, WIDTH)
    model = compiled(target, Apply(chains), *examples)
    x, y = pairs(WIDTH)
    for level in OPTIMIZATIONS:
        for k, (a, b) in enumerate(zip(opened(model, level)(x, y), chains(x, y), strict=True)):
            assert_same_bits(a, b, f"chain {k} with optimizations {level}", x, y)


@targets
def test_tables_of_every_type(target: str) -> None:
    ids = torch.tensor([[3, 0, 2]])
    for dtype in (torch.float32, torch.float16, torch.bfloat16):
        table = torch.randn(5, 7, generator=torch.Generator().manual_seed(1)).to(dtype)
        module = Apply(lambda ids, table=table: mm.embedding(ids, table))
        session = opened(compiled(target, module, ids))
        made: Any = session(ids)
        assert_same_bits(made, table[ids].float(), str(dtype))


@targets
def test_rows_that_are_too_long(target: str) -> None:
    codes = torch.zeros(4, 43_945, dtype=torch.int8)

    def product(x: Tensor) -> Tensor:
        out: Tensor = mm.ternary_linear(*mm.quantize(x, 1e-5), codes, torch.ones(1), None)
        return out

    with pytest.raises(TargetError, match=r"43,?945 columns"):
        compiled(target, Apply(product), torch.ones(1, 43_945))


@targets
def test_a_module_passes_the_checker(target: str) -> None:
    for model in (pointwise(target), rows(target, 127)):
        made = onnx.load_from_string(model.artifact.members["model.onnx"].tobytes())
        onnx.checker.check_model(made, full_check=True)


@targets
def test_shapes_of_products(target: str) -> None:
    """Other numbers of rows than multiples of 4 are padded in the weight, and cut off again."""
    inputs = [torch.randn(2, 3, k) for _, k in SHAPES]
    outputs = opened(compiled(target, Products(), *inputs))(*inputs)
    assert [x.shape[-1] for x in outputs[::2]] == [n for n, _ in SHAPES]
    assert np.isfinite(outputs[0].numpy()).all()
