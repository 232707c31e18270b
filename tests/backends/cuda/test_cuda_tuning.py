"""Settings of kernels: the sizes of the plans, and those kept for this machine's GPU."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from op_modules import TinyLM
from test_cuda_schedule import program_of

import mmfree_compiler as mmf
from mmfree_compiler.artifact import pack_constants
from mmfree_compiler.artifact.binding import NOTE, SIZE
from mmfree_compiler.backends.cuda.archs import ARCHS
from mmfree_compiler.backends.cuda.compile import compiler, tuning
from mmfree_compiler.backends.cuda.compile.compiler import CudaCompiler, planned
from mmfree_compiler.backends.cuda.compile.kernel import Source
from mmfree_compiler.backends.cuda.compile.planned import PlannedProgram
from mmfree_compiler.backends.cuda.compile.shapes import PLANS, sizes_of
from mmfree_compiler.backends.cuda.facts import Kernel, read_facts
from mmfree_compiler.backends.cuda.spec import Spec
from mmfree_compiler.backends.interface import Tunable
from mmfree_compiler.building import cache
from mmfree_compiler.errors import TargetError

DEFAULTS = dict(tuning.defaults("sm_90"))
SETTING = "wgmma16x64 stages"
SHARED = "gemv warps"  # of all architectures
OTHER = {
    name: next(value for value in reversed(values) if value != DEFAULTS[name])
    for name, values in tuning.candidates("sm_90").items()
}


@pytest.fixture(scope="module")
def model() -> PlannedProgram:
    return program_of(TinyLM(L=2), torch.zeros(2, 3, dtype=torch.int64))


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch, cold: Path) -> list[Any]:  # noqa: ARG001 - nothing is kept
    """The GPUs of this machine: at first an H100."""
    found = [SimpleNamespace(name="H100", capability=(9, 0))]
    module = SimpleNamespace(devices=lambda: found)
    monkeypatch.setattr(tuning, "device_module", lambda: module)
    return found


def sources(model: PlannedProgram, settings: Any) -> list[Source]:
    _, tensors = pack_constants(model.constants.values())
    return planned(model, tensors, tuning.plans(PLANS, "sm_90", settings))[0]


@pytest.mark.parametrize("arch", ARCHS)
def test_the_defaults_are_the_table(arch: str) -> None:
    known, defaults = tuning.candidates(arch), tuning.defaults(arch)
    plans = tuning.plans(PLANS, arch, defaults)
    assert plans == tuple(replace(plan, sizes=sizes_of(ARCHS[arch])) for plan in PLANS)
    assert known.keys() == defaults.keys()
    for name, values in known.items():
        assert defaults[name] in values
        assert {2 * value for value in values[:-1]} == {v // 2 * 2 for v in values[1:]}


def test_a_setting_reaches_its_kernels_alone(model: PlannedProgram) -> None:
    before = {source.name: source for source in sources(model, DEFAULTS)}
    after = {source.name: source for source in sources(model, DEFAULTS | {SETTING: OTHER[SETTING]})}
    assert before.keys() == after.keys()
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {name for name, source in before.items() if source.per == 16}
    assert {after[name].stages for name in changed} == {OTHER[SETTING]}


def test_every_value_has_kernels(model: PlannedProgram) -> None:
    """Kernels of different sizes have different names: `planned` asserts that."""
    differing = set()
    for name, values in tuning.candidates("sm_90").items():
        texts = {repr(sources(model, DEFAULTS | {name: value})) for value in values}
        differing |= {name} if len(texts) == len(values) else set()
    # A small model fills no GPU with larger tiles, and has few columns for fused programs.
    assert differing == {
        *("scan columns", "scan warps", "scan stages", "scan block_tokens"),
        *("fused warps", "gemv warps", "wgmma16x64 stages"),
    }


def test_what_is_kept_is_found(model: PlannedProgram, gpu: list[Any]) -> None:
    assert tuning.find(model, "sm_90") == DEFAULTS
    tuning.keep(model, "sm_90", OTHER)
    assert tuning.find(model, "sm_90") == OTHER
    wider = {
        name: replace(constant, shape=(constant.shape[0] + 1, *constant.shape[1:]))
        for name, constant in model.constants.items()
    }
    assert tuning.find(replace(model, constants=wider), "sm_90") == DEFAULTS
    gpu[0].name = "H200"
    assert tuning.find(model, "sm_90") == DEFAULTS


def test_without_the_gpu_nothing_is_kept(model: PlannedProgram, gpu: list[Any]) -> None:
    tuning.keep(model, "sm_90", OTHER)
    assert tuning.find(model, "sm_80") == tuning.defaults("sm_80")
    with pytest.raises(TargetError, match="has no GPU of sm_80"):
        tuning.keep(model, "sm_80", OTHER)
    gpu.clear()
    assert tuning.find(model, "sm_90") == DEFAULTS


@pytest.mark.usefixtures("gpu")
def test_what_another_version_kept_is_left_out(model: PlannedProgram) -> None:
    first = next(iter(OTHER))
    outdated = (OTHER | {"more": 1}, OTHER | {first: 7}, {first: OTHER[first]}, [1], None)
    for text in (*(json.dumps(settings).encode() for settings in outdated), b"\xff", b""):
        cache.store(tuning._key(model, "sm_90"), text)
        assert tuning.find(model, "sm_90") == DEFAULTS


def without_code(kernels: Sequence[Source], archs: Sequence[str]) -> dict[str, Any]:
    """As compile/build.py, without code."""
    places = {
        source.name: Kernel(
            symbol=source.name,
            offset=0,
            size=1,
            warps=source.warps,
            shared=0,
            dependent=False,
            parameters=list(source.parameters),
        )
        for source in kernels
    }
    return {arch: (NOTE + bytes(SIZE), places) for arch in archs}


def _warps(artifact: Any, build: int) -> set[int]:
    facts = read_facts(artifact.builds[build])
    return {kernel.warps for name, kernel in facts.kernels.items() if re.search("tiles.*_1x", name)}


def test_each_architecture_has_its_settings(
    model: PlannedProgram, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(compiler, "compiled", without_code)
    kept = {"sm_90": OTHER}
    monkeypatch.setattr(tuning, "find", lambda _, arch: kept.get(arch, tuning.defaults(arch)))
    maker = CudaCompiler()
    emitted = maker.emit(model, Spec(("sm_80", "sm_90", "sm_86")))
    assert [build.name for build in emitted.builds] == ["sm_80", "sm_90", "sm_86"]
    wanted = [{settings[SHARED]} for settings in (DEFAULTS, OTHER, DEFAULTS)]
    assert [_warps(emitted, build) for build in range(3)] == wanted
    assert set(emitted.members) >= {f"kernels/{x}.cubins" for x in ("sm_80", "sm_90", "sm_86")}


def test_a_model_is_built_again_with_other_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiler, "compiled", without_code)
    maker, spec = CudaCompiler(), Spec(("sm_90",))
    assert isinstance(maker, Tunable)
    ids = torch.zeros(2, 3, dtype=torch.int64)
    artifact = mmf.compile(TinyLM(L=2), "cuda:sm_90", example_inputs=(ids,), check=False).artifact
    assert _warps(artifact.entry, 0) == {DEFAULTS[SHARED]}
    retuned = maker.retuned(artifact, spec, OTHER)
    assert _warps(retuned.entry, 0) == {OTHER[SHARED]}
    retuned.check_binding("kernels/sm_90.cubins")
    assert retuned.entry.tensors == artifact.entry.tensors
