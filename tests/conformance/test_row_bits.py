"""Norms and quantizers on rows that go wrong first: the bits of the references.

On every kind of vector; test_cpu_special_values.py tests which variants have the same code.
"""

from __future__ import annotations

from functools import cache

import pytest
import torch
from op_modules import distinct, runnable_variants
from special_values import Rows, assert_same_bits, forced_rows

import mmfree_compiler as mmf
from mmfree_compiler.compiled_model import CompiledModel
from mmfree_compiler.runtime import Session

VARIANTS = distinct(runnable_variants())
WIDTHS = [1, 37, 129, 2047]  # test_cpu_special_values.py compiles the kernels of 37 columns too

variants = pytest.mark.parametrize("variant", VARIANTS)


@cache
def compiled(width: int) -> CompiledModel:
    example = torch.ones(2, width)
    target = f"cpu:{','.join(VARIANTS)}"
    return mmf.compile(
        Rows(width), target, example_inputs=(example, example), check=False, threads=2
    )


@variants
@pytest.mark.parametrize("width", WIDTHS)
def test_rows(variant: str, width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Many tokens in one call, and a call for each token."""
    monkeypatch.setenv("MMFREE_VARIANT", variant)
    session, module = Session(compiled(width).artifact, threads=2), Rows(width)
    x = forced_rows(width)
    h = x.flip(0)
    expected = module(x, h)
    for k, (a, b) in enumerate(zip(session(x, h), expected, strict=True)):
        assert_same_bits(a, b, f"output {k} of {width} columns", x)
    for row in range(0, len(x), 29):
        for a, b in zip(session(x[[row]], h[[row]]), expected, strict=True):
            assert_same_bits(a, b[[row]], f"row {row} of {width} columns", x[[row]])
