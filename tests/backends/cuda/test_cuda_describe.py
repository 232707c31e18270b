"""What `mmfree inspect` and `mmfree bench` say about a model of the target; nothing is compiled."""

from __future__ import annotations

import dataclasses
from types import ModuleType, SimpleNamespace

import pytest
import torch
from interpreted import InterpretedExecutor
from op_modules import TinyLM
from test_cuda_tuning import without_code

import mmfree_compiler as mmf
from mmfree_compiler.artifact import Artifact, StateEntry, TensorEntry
from mmfree_compiler.backends.cuda.archs import ARCHS, Card
from mmfree_compiler.backends.cuda.compile import compiler
from mmfree_compiler.backends.cuda.describe import Step, describe
from mmfree_compiler.backends.cuda.facts import read_facts
from mmfree_compiler.backends.cuda.run.calls import INDEX_BYTES
from mmfree_compiler.backends.cuda.run.launcher import CudaLauncher
from mmfree_compiler.backends.cuda.run.states import FIRST_ROWS
from mmfree_compiler.backends.cuda.strides import CHUNK, OUTPUTS
from mmfree_compiler.backends.interface import OnDevice


@pytest.fixture(scope="module")
def artifact() -> Artifact:
    ids = (torch.zeros(2, 3, dtype=torch.int64),)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiler, "compiled", without_code)
        target = "cuda:sm_90,sm_80"
        return mmf.compile(TinyLM(L=2), target, example_inputs=ids, check=False).artifact


def _entry(dtype: str, shape: tuple[int, ...], role: str, nbytes: int, count: int) -> TensorEntry:
    layout = "quarters_2bit" if role == "ternary" else "dense"
    return TensorEntry.model_validate(
        {
            "dtype": dtype,
            "shape": shape,
            "role": role,
            "layout": layout,
            "offset": 0,
            "nbytes": nbytes,
            "count": count,
        }
    )


def test_what_a_step_takes() -> None:
    tensors = {
        "w": _entry("uint8", (100, 200), "ternary", 2 * 128 * 64, 2),
        "table": _entry("float32", (10, 8), "table", 320, 1),
        "norm": _entry("float32", (8,), "row", 64, 2),
    }
    states = (StateEntry(name="h", shape=(3,), count=2), StateEntry(name="taps", shape=(4, 6)))
    expected = Step(nbytes=16384 + 32 + 64 + 2 * 4 * (6 + 24), operations=2 * 2 * 100 * 200)
    assert Step.of(tensors.values(), states) == expected


def test_a_step_beside_the_cards_limits(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch
) -> None:
    step = Step.of(artifact.entry.tensors.values(), artifact.manifest.states)
    card = Card("a card", memory=step.nbytes * 1e4, int8=step.operations * 1e5)
    monkeypatch.setitem(ARCHS, "sm_90", dataclasses.replace(ARCHS["sm_90"], card=card))
    described = describe(artifact)
    assert described["GPUs"] == "sm_90 (H100, H200); sm_80 (A100)"
    assert described["launches per call"].startswith("10 for one token; ")
    assert described["a step of one token"].startswith(f"{step.nbytes / 1e6:,.1f} MB of weights")
    first, second = described["at least"].split("; ")
    assert first.startswith("100.0 µs for memory, 10.00 µs for products on a card (")
    assert second.endswith(" on A100 80GB SXM (2,039 GB/s, 624 TOPS)")


@pytest.mark.parametrize(
    ("capability", "found"),
    [((9, 0), "sm_90, GPU 0 (a GPU)"), ((7, 5), "none of them: a GPU of compute capability 7.5:")],
)
def test_the_build_that_runs_here(
    artifact: Artifact, monkeypatch: pytest.MonkeyPatch, capability: tuple[int, int], found: str
) -> None:
    gpu = SimpleNamespace(index=0, name="a GPU", capability=capability)
    module = SimpleNamespace(devices=lambda: [gpu])
    monkeypatch.setattr("mmfree_compiler.backends.cuda.describe.device_module", lambda: module)
    assert describe(artifact)["runs here with"].startswith(found)


def test_the_memory_that_a_model_takes(artifact: Artifact) -> None:
    build = artifact.entry.builds[0]
    launcher = CudaLauncher(artifact, build, InterpretedExecutor(ModuleType("no kernels")))
    assert isinstance(launcher, OnDevice)
    facts, ids = read_facts(build), CHUNK * 8
    logits = facts.output_start + OUTPUTS * 4 * artifact.manifest.outputs[0].width
    states = 2 * 4 * FIRST_ROWS * artifact.manifest.states[0].shape[0]
    weights = len(artifact.weights)
    rows = max(facts.scratch, logits)
    assert launcher.device_bytes == weights + rows + INDEX_BYTES + ids + states
