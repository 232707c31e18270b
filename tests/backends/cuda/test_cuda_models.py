"""Generated kernels in Triton's interpreter: whole models have the reference's bits.

benchmarks/gpu_check.py compares larger ones, on a GPU.
"""

from __future__ import annotations

import pytest
from triton_process import interpreted

from mmfree_compiler import backends
from mmfree_compiler.ops import OPS


def test_every_op_is_lowered() -> None:
    compound = {name for name, op in OPS.items() if op.kind == "compound"}
    assert OPS.keys() - compound == backends.get("cuda").compiler().ops


@pytest.mark.slow
@pytest.mark.parametrize("bundled", ["", "conv_shared"])
def test_a_language_model(bundled: str) -> None:
    assert interpreted("cuda_models.language_model", bundled) == []


@pytest.mark.parametrize("name", ["pointwise", "rows", "odd"])
@pytest.mark.parametrize("count", [1, 5])
def test_a_module(name: str, count: int) -> None:
    assert interpreted("cuda_models.module", name, count) == []


def test_rows_on_the_device() -> None:
    assert interpreted("cuda_models.rows_on_the_device") == []
