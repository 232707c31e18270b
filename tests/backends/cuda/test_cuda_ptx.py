"""The device library compiles to instructions that round as IEEE 754 says."""

from __future__ import annotations

import re

import pytest
from triton_process import native

# Products fused with sums; results below 2^-126 as 0; Triton's inexact quotients and functions.
INEXACT = re.compile(r"fma\.|\.ftz|\.approx|\.full")


@pytest.mark.parametrize("capability", [80, 90, 120])
def test_instructions(capability: int) -> None:
    found, spilled = native("library_ptx.instructions", capability)
    assert {"div.rn.f32", "sqrt.rn.f32", "mul.rn.f32", "add.rn.f32"} <= found
    assert [name for name in sorted(found) if INEXACT.search(name)] == []
    assert spilled == 0


def test_instructions_of_sampling() -> None:
    found, spilled = native("sampling_kernels.compiled", "sm_90")
    assert "div.rn.f32" in found
    assert [name for name in sorted(found) if INEXACT.search(name)] == []
    assert spilled == 0
