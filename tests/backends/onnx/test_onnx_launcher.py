"""Options of ONNX sessions, batches of all shapes, and opinions of ONNX's own evaluator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from model_bits import digest, ragged_digest, texts
from onnx.reference import ReferenceEvaluator
from onnx_sessions import compiled, opened, targets
from op_modules import TinyLM

import mmfree_compiler as mmf
from mmfree_compiler.backends.interface import Batch
from mmfree_compiler.backends.onnx.run import launcher
from mmfree_compiler.backends.onnx.run.engine import TESTED, Engine
from mmfree_compiler.compiled_model import CompiledModel
from mmfree_compiler.errors import ArtifactError, InputError, ToolchainError
from mmfree_compiler.runtime import Session

IDS = torch.randint(0, 37, (2, 5), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def tiny() -> CompiledModel:
    return compiled("onnx", TinyLM(), IDS)


@pytest.fixture(scope="module")
def expected() -> Session:
    return compiled("reference", TinyLM(), IDS).session


def test_the_reference_evaluator_agrees(tiny: CompiledModel) -> None:
    """ONNX's own, in NumPy: a third opinion about every node."""
    model = onnx.load_from_string(tiny.artifact.members["model.onnx"].tobytes())
    manifest = tiny.artifact.manifest
    inputs = {
        f"state.{s.name}": np.zeros((2, s.count, *s.shape), np.float32) for s in manifest.states
    }
    made: Any = ReferenceEvaluator(model).run(None, {"tokens": IDS.numpy(), **inputs})
    logits, state = tiny(IDS)
    assert np.array_equal(made[0], logits.numpy())
    for slot, after in zip(manifest.states, made[1:], strict=True):
        assert np.array_equal(after, state.part(slot.name))


def test_batches_and_chunks(
    tiny: CompiledModel, expected: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launcher, "CHUNK", 4)
    session = opened(tiny, threads=2)
    for batch, chunk in ((1, 1), (3, 5), (7, 64)):
        assert digest(session, batch, chunk) == digest(expected)
    assert ragged_digest(session, together=True) == ragged_digest(expected, together=False)
    assert texts(session, together=True) == texts(expected, together=False)


def test_any_tokens_may_be_wanted(tiny: CompiledModel, expected: Session) -> None:
    """None, the last, and some of several sequences, in any order of tokens."""
    slots = np.array([1, 0, 1, 1, 0, 2], np.int32)
    ids, positions = np.array([3, 1, 4, 1, 5, 9]), np.array([0, 0, 1, 2, 1, 0])
    for wanted in ([], [5], [1, 3], [0, 1, 2, 3, 4, 5]):
        made = []
        for session in (opened(tiny), expected):
            states = session.launcher.states(3)
            batch = Batch((ids,), slots, positions, np.array(wanted, np.intp))
            made.append((*session.launcher.run(batch, states), *states.export().values()))
        for ours, theirs in zip(*made, strict=True):
            assert np.array_equal(ours, theirs)


@targets
def test_states_go_to_other_targets(target: str, expected: Session) -> None:
    session = opened(compiled(target, TinyLM(), IDS))
    ids = IDS.numpy()
    _, state = expected(ids[:, :2])
    logits, _ = session(ids[:, 2:], state)
    assert np.array_equal(logits, expected(ids)[0][:, 2:])


def test_options(tiny: CompiledModel) -> None:
    with pytest.raises(InputError, match=r"providers 'NoSuch'.*Known: .*CPUExecutionProvider"):
        Session(tiny.artifact, providers=["NoSuch"])
    for providers in (TESTED, 5):
        with pytest.raises(InputError, match=rf"providers {providers!r}: is not a list\. Pass \["):
            Session(tiny.artifact, providers=providers)
    with pytest.raises(InputError, match=r"optimizations 'some'.*Known: off, basic"):
        Session(tiny.artifact, optimizations="some")
    with pytest.raises(InputError, match="threads"):
        Session(tiny.artifact, 0)
    assert Session(tiny.artifact, 2, providers=[TESTED]).launcher.build == "standard"


def test_a_provider_that_was_not_tested_says_so(
    tiny: CompiledModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    providers = property(lambda _: ("CUDAExecutionProvider", TESTED))
    monkeypatch.setattr(Engine, "providers", providers)
    name = Session(tiny.artifact).launcher.build
    assert name == "standard on CUDAExecutionProvider, not tested: other bits are possible"


def test_what_onnx_runtime_refuses(tiny: CompiledModel, monkeypatch: pytest.MonkeyPatch) -> None:
    session = opened(tiny)
    with pytest.raises(ToolchainError, match="ONNX Runtime: fails"):
        session.launcher.engine.run({}, ["logits"])  # type: ignore[attr-defined]

    def refuse(*_: object, **__: object) -> None:
        raise RuntimeError("[ONNXRuntimeError] : 9 : no such operator\nmore")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    with pytest.raises(ArtifactError, match=r"is refused by ONNX Runtime: .*no such operator\."):
        opened(tiny)


def test_without_onnx_runtime(
    tiny_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.onnx"
    mmf.compile(tiny_checkpoint, "onnx", check=False).save(path)
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(ToolchainError, match=r"pip install 'mmfree-compiler\[onnx\]'"):
        mmf.load(path)
