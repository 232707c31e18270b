"""Tiles whose codes and weights come through a ring: their steps, and what they become.

benchmarks/gpu_check.py compares their bits, on a GPU: Gluon has no interpreter.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from fused_kernels import Products
from op_modules import TinyLM, mm
from test_cuda_schedule import parts, program_of
from torch import Tensor, nn
from triton_process import native

import mmfree_compiler as mmf
from mmfree_compiler.backends.cuda.archs import ARCHS
from mmfree_compiler.backends.cuda.compile.shapes import Shape, sizes_of
from mmfree_compiler.backends.cuda.compile.wgmma_tiles import Step, steps_of

WGMMA = [shape for shape in sizes_of(ARCHS["sm_90"]).gemm if shape.function == "wgmma"]


def steps(module: nn.Module, *inputs: Tensor) -> list[Step]:
    """Of the first tiles with products."""
    program = program_of(module, *inputs)
    part = next(part for part in parts(program, together=False) if part.codes)
    return steps_of(program, part.nodes)


def ops(step: Step) -> list[str]:
    return [node.op for node in step.nodes]


def test_what_is_independent_has_programs_of_its_own() -> None:
    """The gate of the output needs nothing of the recurrence."""
    assert [ops(step) for step in steps(TinyLM(L=2), torch.zeros(2, 3, dtype=torch.int64))] == [
        ["ternary_linear", "ternary_linear", "mlgru_gates", "mlgru_scan"],
        ["ternary_linear"],
    ]


def test_what_is_added_is_one_step() -> None:
    (step,) = steps(Products(3, 24), torch.randn(1, 24))
    assert ops(step) == ["ternary_linear"] * 3 + ["add"] * 2


class _Apart(Products):
    """Products that nothing adds up."""

    def forward(self, x: Tensor) -> list[Tensor]:  # type: ignore[override]  # two outputs
        made = mm.norm_quant(x, self.norm, 1e-6, [self.norm] * 2, 1e-6, 1e-5)
        pairs = zip(made[::2], made[1::2], self.weights, strict=True)
        return [mm.ternary_linear(q, s, w, self.scale, None) for q, s, w in pairs]


def test_what_overwrites_is_with_what_reads() -> None:
    program = program_of(_Apart(2, 24), torch.randn(1, 24))
    (part,) = (part for part in parts(program, together=False) if part.codes)
    first, second = steps_of(program, part.nodes)
    written, read = first.products[0].outputs[0], str(second.products[0].inputs[1])
    places = {**program.places, written: program.places[read]}
    (joined,) = steps_of(replace(program, places=places), part.nodes)
    assert joined.nodes == part.nodes


@pytest.mark.parametrize("shape", WGMMA, ids=lambda shape: shape.name)
@pytest.mark.parametrize("k", [24, 256, 300, 768, 2048])
def test_kernels_fit_into_the_device(shape: Shape, k: int) -> None:
    """With weights of one piece, of some and a rest, and of more than the ring has slots."""
    shared, spilled, has_wgmma = native("wgmma_kernels.compiled", min(2, shape.products), k, shape)
    assert shared <= ARCHS["sm_90"].shared
    assert spilled == 0
    assert has_wgmma


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("k", [24, 300, 768, 1300])
def test_products_on_a_gpu(k: int) -> None:
    """Of few tokens and of many, the last tile not full."""
    x = torch.randn(1, 5, k, generator=torch.Generator().manual_seed(k))
    model = mmf.compile(Products(2, k), "cuda", example_inputs=(x,))
    expected = mmf.compile(Products(2, k), "reference", example_inputs=(x,), check=False)
    for count in (2, 20, 70, 1030):
        rows = torch.randn(1, count, k, generator=torch.Generator().manual_seed(count))
        assert torch.equal(model(rows), expected(rows)), count
