"""AMX kernels use the matrix units, and take another way when the system does not lend them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from amx_emulation import emulate_amx
from hypothesis import given, settings
from hypothesis import strategies as st
from op_modules import SmallLM, mm, runnable_variants, ternary
from torch import Tensor, nn

import mmfree_compiler as mmf
from mmfree_compiler.backends.cpu import features
from mmfree_compiler.backends.cpu.features import AMX, lacks
from mmfree_compiler.backends.cpu.variants import VARIANTS
from mmfree_compiler.backends.interface import Batch
from mmfree_compiler.runtime import Session


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


@pytest.fixture(scope="module")
def sessions() -> list[Session]:
    """The same model on matrix units and on vectors; widths of a tile and a half, and more."""
    if "x86-64-amx" not in runnable_variants():
        pytest.skip("no AMX, and no AVX-512 to emulate it on")
    ids = torch.zeros(2, 3, dtype=torch.int64)
    variants = ("x86-64-amx", "x86-64-avx512vbmi")
    model = SmallLM(D=100, inner=180)
    made = [mmf.compile(model, f"cpu:{name}", example_inputs=(ids,)) for name in variants]
    return [Session(each.artifact, 2) for each in made]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_every_count_of_tokens_and_logits(sessions: list[Session], data: st.DataObject) -> None:
    """Tiles of tokens may be cut at both ends; results are those of vectors, to the bit."""
    tokens = data.draw(st.integers(1, 150))
    first = data.draw(st.integers(0, tokens - 1))
    ids = np.random.default_rng(tokens).integers(37, size=tokens)
    slots = np.sort(np.random.default_rng(first).integers(3, size=tokens)).astype(np.int32)
    index = np.arange(tokens)
    batch = Batch((ids,), slots, index, index[first:])
    found = []
    for session in sessions:
        states = session.launcher.states(3)
        found.append((*session.launcher.run(batch, states), states.array))
    for ours, expected in zip(*found, strict=True):
        assert np.array_equal(ours, expected)


def test_no_permission_is_no_amx(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(features, "machine_arch", lambda: "x86_64")
    flags = " ".join({"fpu", *AMX})
    monkeypatch.setattr(features, "CPUINFO", _Text(f"flags : {flags}\n"))
    for allowed in (True, False):
        monkeypatch.setattr(features, "_may_use_amx", lambda allowed=allowed: allowed)
        features.cpu_features.cache_clear()
        assert (features.cpu_features() >= AMX) == allowed
        assert ("amx_tile" in lacks(VARIANTS["x86-64-amx"])) != allowed
    monkeypatch.undo()
    features.cpu_features.cache_clear()


class _Text:
    """A path whose text is known."""

    def __init__(self, text: str) -> None:
        self._text = text

    def read_text(self) -> str:
        return self._text
