"""Kernels that go through sequences in Gluon: their text as Triton's, and what they become.

Only a GPU runs them as they are: tests/conformance/test_model_bits.py.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from op_modules import TinyLM
from test_cuda_schedule import parts, program_of
from triton_process import interpreted, native

from mmfree_compiler.artifact import pack_constants
from mmfree_compiler.backends.cuda.archs import ARCHS
from mmfree_compiler.backends.cuda.compile.planned import PlannedProgram
from mmfree_compiler.backends.cuda.compile.schedule import inner_values
from mmfree_compiler.backends.cuda.compile.shapes import PlanShape
from mmfree_compiler.backends.cuda.compile.sources import Sources


@pytest.fixture(scope="module")
def model() -> PlannedProgram:
    return program_of(TinyLM(L=2), torch.zeros(2, 3, dtype=torch.int64))


@pytest.mark.parametrize("gluon", [True, False])
def test_scans_of_rows_are_in_gluon(model: PlannedProgram, gluon: bool) -> None:
    """Not those that read codes or ids."""
    _, tensors = pack_constants(model.constants.values())
    sources = Sources(model, tensors, inner_values(model))
    plan = PlanShape(16, together=True, gluon=gluon)
    found = {
        part.kind: sources.write(replace(part, kind="scan"), plan).language
        for part in parts(model, together=True)
        if part.kind in ("scan", "tiles")
    }
    assert found == {"scan": "gluon" if gluon else "triton", "tiles": "triton"}


@pytest.mark.parametrize(
    "sizes", [(16, 2, 2, 4), (32, 1, 3, 0), (64, 3, 4, 4), (32, 4, 32, 4)], ids=str
)
def test_bits_and_states_of_the_reference(sizes: tuple[int, int, int, int]) -> None:
    """Columns, stages, tokens of a block, most nodes that are unrolled: 9 tokens and fewer."""
    assert interpreted("scan_kernels.differing", *sizes) == []


@pytest.mark.parametrize("arch", ARCHS)
def test_kernels_compile(arch: str) -> None:
    """They copy 16 bytes at once, wait for each block and at the end, and spill nothing."""
    assert native("scan_kernels.compiled", arch, 32, 1, 1024) == ({"0x10"}, 2, 0)


@pytest.mark.parametrize(("columns", "warps"), [(16, 1), (64, 1), (32, 4), (128, 16)])
def test_other_sizes_compile(columns: int, warps: int) -> None:
    """With rows that have no whole number of 16 bytes, but are filled."""
    assert native("scan_kernels.compiled", "sm_90", columns, warps, 37) == ({"0x10"}, 2, 0)


def test_inputs_may_begin_anywhere() -> None:
    assert native("scan_kernels.of_inputs", 64) == {"0x4"}


@pytest.mark.parametrize("arch", ["sm_80", "sm_86", "sm_90"])
def test_rings_fit_into_shared_memory(arch: str) -> None:
    """Where they do not as they are, kernels load less ahead: a block of two rings is 32 KiB."""
    assert native("scan_kernels.shared_bytes", arch) == ARCHS[arch].shared // 2**15 * 2**15
