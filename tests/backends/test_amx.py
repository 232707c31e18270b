"""AMX kernels use the matrix units, and take another way when the system does not lend them."""

from __future__ import annotations

import pytest
import torch
from amx_emulation import emulate_amx
from op_modules import mm, ternary
from torch import Tensor, nn

import mmfree_compiler as mmf
from mmfree_compiler.runtime import cpu_features
from mmfree_compiler.runtime.cpu_features import AMX, VARIANTS, lacks


class Product(nn.Module):
    """A ternary product of quantized rows (..., 64) -> (..., 48)."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = ternary(48, 64, torch.Generator().manual_seed(0))

    def forward(self, x: Tensor) -> Tensor:
        codes, scale = mm.quantize(x, 1e-5)
        out: Tensor = mm.ternary_linear(codes, scale, self.weight, torch.ones(1), None)
        return out


@pytest.mark.skipif(emulate_amx() is None, reason="counts instructions in emulation only")
@pytest.mark.parametrize(("tokens", "used"), [(1, False), (2, True), (33, True)])
def test_chunks_of_tokens_go_to_the_matrix_units(tokens: int, used: bool) -> None:
    emulator = emulate_amx()
    assert emulator is not None
    x = torch.randn(tokens, 64)
    model = mmf.compile(Product(), "cpu:x86-64-amx", example_inputs=(torch.randn(2, 64),))
    before = emulator.amx_emulated()
    model(x)
    assert (emulator.amx_emulated() > before) == used


def test_no_permission_is_no_amx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu_features, "machine_arch", lambda: "x86_64")
    flags = " ".join({"fpu", *AMX})
    monkeypatch.setattr(cpu_features, "CPUINFO", _Text(f"flags : {flags}\n"))
    for allowed in (True, False):
        monkeypatch.setattr(cpu_features, "_may_use_amx", lambda allowed=allowed: allowed)
        cpu_features.cpu_features.cache_clear()
        assert (cpu_features.cpu_features() >= AMX) == allowed
        assert ("amx_tile" in lacks(VARIANTS["x86-64-amx"])) != allowed
    monkeypatch.undo()
    cpu_features.cpu_features.cache_clear()


class _Text:
    """A path whose text is known."""

    def __init__(self, text: str) -> None:
        self._text = text

    def read_text(self) -> str:
        return self._text
