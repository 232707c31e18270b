"""Settings of kernels: kept for the same shapes on the same CPU, and of no effect on results."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from op_modules import SmallLM, runnable_variants, state_rows

import mmfree_compiler as mmf
from mmfree_compiler import tune as search
from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.cpu import features
from mmfree_compiler.backends.cpu.compile import tuning
from mmfree_compiler.backends.cpu.compile.compiler import CpuCompiler
from mmfree_compiler.backends.cpu.compile.isa import ISAS
from mmfree_compiler.backends.cpu.compile.tuning import CANDIDATES, Tuning, find, keep
from mmfree_compiler.backends.cpu.layouts import TILE16_TRITS
from mmfree_compiler.backends.cpu.spec import Spec
from mmfree_compiler.backends.interface import Settings
from mmfree_compiler.building import cache as kept
from mmfree_compiler.errors import InputError, TargetError, ToolchainError
from mmfree_compiler.program import Program
from mmfree_compiler.runtime import Session

RUNNABLE = runnable_variants()
OTHER = Tuning(tokens=6, prefetch=0)


@pytest.fixture(autouse=True)
def own_settings(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a test keeps is for a CPU of its own; compiled kernels are shared."""
    monkeypatch.setattr(tuning, "processor", lambda: request.node.nodeid)


@pytest.fixture
def plain_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best variant here is the portable one, whose kernels many tests compile."""
    monkeypatch.setattr(features, "cpu_features", frozenset)


def compiled(options: str) -> Artifact:
    ids = torch.zeros(2, 3, dtype=torch.int64)
    return mmf.compile(SmallLM(), f"cpu:{options}", example_inputs=(ids,)).artifact


def program_of(artifact: Artifact) -> Program:
    assert artifact.program is not None
    return artifact.program


@pytest.fixture(scope="module")
def program() -> Program:
    return program_of(compiled("portable"))


def tuning_of(artifact: Artifact) -> object:
    return artifact.entry.builds[0].facts["tuning"]


def test_what_is_kept_is_found_and_taken() -> None:
    first = compiled("portable")
    program = program_of(first)
    assert find(program, "portable") is None
    assert tuning_of(first) == asdict(ISAS["portable"].tuning)
    keep(program, "portable", OTHER)
    assert find(program, "portable") == OTHER
    assert tuning_of(compiled("portable")) == asdict(OTHER)


def test_what_cannot_be_kept_is_said(program: Program, cold: Path) -> None:
    cold.rename(cold.with_name("away"))
    with pytest.raises(ToolchainError, match="XDG_CACHE_HOME"):
        keep(program, "portable", OTHER)


def test_for_these_shapes_and_this_cpu_alone(
    program: Program, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep(program, "portable", OTHER)
    assert find(program, "x86-64-v3") is None
    name, constant = next((n, c) for n, c in program.constants.items() if "head@" in n)
    wider = (constant.shape[0] + 1, constant.shape[1])
    for other in (replace(constant, shape=wider), replace(constant, layout=TILE16_TRITS)):
        constants = {**program.constants, name: other}
        assert find(replace(program, constants=constants), "portable") is None
    monkeypatch.setattr(tuning, "processor", lambda: "another")
    assert find(program, "portable") is None


NO_TUNINGS = (
    b"",
    b"\xff",
    b"null",
    b"[1]",
    b'{"prefetch": 0}',
    b'{"tokens": 16, "prefetch": 0}',
    b'{"tokens": 6, "prefetch": 0, "more": 1}',
)


@pytest.mark.parametrize("text", NO_TUNINGS)
def test_what_another_version_kept_is_none(program: Program, text: bytes) -> None:
    key = tuning._key(program, "portable")
    kept.store(key, text)
    assert kept.load(key) == text
    assert find(program, "portable") is None


@pytest.mark.parametrize("name", RUNNABLE)
def test_settings_change_no_result(name: str) -> None:
    """Sums are the same integers; all else is the same code."""
    artifact = compiled(name)
    plain = Session(artifact, 2)
    ids = np.random.default_rng(0).integers(37, size=(2, 70))
    expected, state = plain(ids)
    ends = [
        Tuning(*values) for values in zip(*(CANDIDATES[f] for f in asdict(OTHER)), strict=False)
    ]
    for settings in {OTHER, ends[0], ends[-1]} if name == RUNNABLE[-1] else [OTHER]:
        retuned = CpuCompiler().retuned(artifact, Spec((name,)), asdict(settings))
        assert tuning_of(retuned) == asdict(settings)
        session = Session(retuned, 2)
        found, after = session(ids)
        assert np.array_equal(found, expected)
        assert np.array_equal(state_rows(after), state_rows(state))
        assert np.array_equal(session(ids[:, :1], after)[0], plain(ids[:, :1], state)[0])


@pytest.mark.usefixtures("plain_machine")
def test_the_search_keeps_the_fastest(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Speeds are made up: 8 tokens and prefetching 32 blocks are the best."""

    def gains(_: object, tried: Sequence[Settings]) -> list[float]:
        good = [(t["prefetch"] == 32) + (t["tokens"] == 8) for t in tried]
        return [1 + 0.1 * (score - good[0]) for score in good]

    monkeypatch.setattr(search._Search, "gains", gains)
    report = search.tune(tiny_checkpoint, threads=1)
    assert (report.target, report.build) == ("cpu:portable", "portable")
    assert report.settings == {"prefetch": 32, "tokens": 8}
    assert tuning_of(mmf.compile(tiny_checkpoint, report.target).artifact) == report.settings


@pytest.mark.usefixtures("plain_machine")
def test_chance_is_not_kept(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is faster once, when much is tried, must be faster again, beside the best alone."""

    def gains(_: object, tried: Sequence[Settings]) -> list[float]:
        return [1.0] * (len(tried) - 1) + [1.8 if len(tried) > 2 else 1.0]

    monkeypatch.setattr(search._Search, "gains", gains)
    report = search.tune(tiny_checkpoint, threads=1)
    assert report.settings == asdict(ISAS[report.build].tuning)


@pytest.mark.usefixtures("plain_machine")
def test_the_search_measures(tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "SAMPLE_SECONDS", 0.0)
    monkeypatch.setattr(search, "ROUNDS", 1)
    for name, values in {"prefetch": (32, 128), "tokens": (8,)}.items():
        monkeypatch.setitem(CANDIDATES, name, values)
    told: list[str] = []
    report = search.tune(tiny_checkpoint, threads=1, progress=told.append)
    assert {trial.setting for trial in report.trials} == {"prefetch", "tokens"}
    assert len(told) >= len(report.trials) + 2  # what wins is measured again
    assert all(trial.gain > 0 for trial in report.trials)


def test_blocks_of_tokens_are_not_tuned_for_matrix_units() -> None:
    for name, isa in ISAS.items():
        tried = CpuCompiler().candidates(Spec((name,))).keys()
        assert tried == ({"prefetch"} if isa.matrices else {"prefetch", "tokens"})


def test_only_language_models_are_tuned(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = torch.nn.Sequential(mmf.models.BitLinear(16, 16))
    module = mmf.compile(layers, "reference", example_inputs=(torch.zeros(1, 16),))
    monkeypatch.setattr("mmfree_compiler.compiler.compile", lambda *_, **__: module)
    with pytest.raises(InputError, match="language model"):
        search.tune(torch.nn.Identity())


def test_only_targets_with_settings_are_tuned(tiny_checkpoint: Path) -> None:
    with pytest.raises(TargetError, match="has no settings to tune"):
        search.tune(tiny_checkpoint, "reference")


def test_settings_are_for_a_kind_of_target(tiny_checkpoint: Path) -> None:
    with pytest.raises(TargetError, match=r"names a build.*\. Write cpu, without options"):
        search.tune(tiny_checkpoint, "cpu:portable")
