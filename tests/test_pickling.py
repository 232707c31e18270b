"""Models, sessions and states travel to other processes: as their artifact, as their numbers."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from test_compiler import Unusual, rows, tiny_lm

import mmfree_compiler as mmf
from mmfree_compiler.compiled_model import CompiledModel
from mmfree_compiler.errors import ArtifactError, InputError
from mmfree_compiler.fallback import EagerModel
from mmfree_compiler.runtime import Session, State, load

TOKENS = np.array([[1, 2, 3]])


@pytest.fixture(scope="module", params=["reference", "cpu:portable"])
def model(request: pytest.FixtureRequest) -> CompiledModel:
    compiled = mmf.compile(tiny_lm(), request.param)
    compiled(TOKENS)
    return compiled


def again(value: Any) -> list[Any]:
    return [pickle.loads(pickle.dumps(value)), copy.deepcopy(value), copy.copy(value)]


def test_a_compiled_model(model: CompiledModel) -> None:
    for other in again(model):
        assert isinstance(other, CompiledModel)
        assert other.artifact.manifest == model.artifact.manifest
        assert np.array_equal(other(TOKENS)[0], model(TOKENS)[0])
        assert other.explain().passes == model.explain().passes


def test_its_session_artifact_and_state(model: CompiledModel, tmp_path: Path) -> None:
    logits, state = model(TOKENS)
    for session in again(model.session):
        assert isinstance(session, Session)
        assert np.array_equal(session(TOKENS)[0], logits)
        for other in again(state):
            assert isinstance(other, State)
            assert other.length == state.length
            expected = model(TOKENS, state)[0]
            assert np.array_equal(session(TOKENS, other)[0], expected)
            assert np.array_equal(session.advance(TOKENS, other), expected)
    for artifact in again(model.artifact):
        assert np.array_equal(Session(artifact)(TOKENS)[0], logits)
        if artifact.entry.builds:
            artifact.save(tmp_path / "again.mmfree")
            model.save(tmp_path / "model.mmfree")
            written = (tmp_path / "again.mmfree").read_bytes()
            assert written == (tmp_path / "model.mmfree").read_bytes()


def test_each_equals_itself_only(model: CompiledModel) -> None:
    for value in (model, model.session, model.artifact, model(TOKENS)[1]):
        assert len({value, value, copy.copy(value)}) == 2
        assert value == value
        assert value != copy.copy(value)


def test_the_program_stays_where_it_was_compiled() -> None:
    model = mmf.compile(tiny_lm(), "cpu:portable", check=False)
    assert model.program.outputs
    other = pickle.loads(pickle.dumps(model))
    with pytest.raises(InputError, match="program: is not part of a pickled model"):
        assert other.program


def test_a_loaded_session_needs_no_torch(tiny_artifact: Path, tmp_path: Path) -> None:
    session, path = load(tiny_artifact, threads=1), tmp_path / "pickled"
    logits, state = session(TOKENS)
    path.write_bytes(pickle.dumps((session, state)))
    code = (
        f"import pickle, sys; session, state = pickle.load(open({str(path)!r}, 'rb'))\n"
        "session([[4]], state); print(float(session([[1, 2, 3]])[0].sum()), 'torch' in sys.modules)"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout == f"{float(logits.sum())} False\n"


def test_a_file_that_changes_does_not_change_what_was_pickled(
    tiny_artifact: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.mmfree"
    path.write_bytes(tiny_artifact.read_bytes())
    session = load(path)
    pickled = pickle.dumps(session)
    path.unlink()
    assert np.array_equal(pickle.loads(pickled)(TOKENS)[0], session(TOKENS)[0])


def test_a_file_that_was_changed_in_place_is_not_copied(
    tiny_artifact: Path, tmp_path: Path
) -> None:
    path, other = tmp_path / "model.mmfree", tmp_path / "other.mmfree"
    path.write_bytes(tiny_artifact.read_bytes())
    artifact = load(path).artifact
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"!")
    for copied in (pickle.dumps, copy.copy, lambda artifact: artifact.save(other)):
        with pytest.raises(ArtifactError, match="was changed after it was loaded"):
            copied(artifact)
    assert not other.exists()


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_generation_stays_where_it_runs(
    tiny_artifact: Path, copied: Callable[[object], object]
) -> None:
    generation = load(tiny_artifact).generate([1])
    next(generation)
    with pytest.raises(InputError, match=r"generation: .* cannot be copied or pickled. Copy its"):
        copied(generation)
    assert copied(generation.state)
    assert copied(generation.tokens)


def test_damage_of_what_was_pickled(tiny_artifact: Path) -> None:
    session = load(tiny_artifact)
    pickled = pickle.dumps(session)
    for name, member in session.artifact.members.items():
        place, middle = pickled.index(member.tobytes()), member.size // 2
        damaged = bytearray(pickled)
        damaged[place + middle] ^= 1
        with pytest.raises(ArtifactError, match=f"pickled artifact: {name} is damaged"):
            pickle.loads(damaged)
    misspelt = pickled.replace(b'"schema_version":', b'"schema_versiom":')
    with pytest.raises(ArtifactError, match="pickled artifact: has an invalid manifest"):
        pickle.loads(misspelt)


def call(model: Any, x: Any, queue: Any) -> None:
    queue.put(np.asarray(model(x)))


@torch.no_grad()
def test_an_eager_model() -> None:
    module, x = Unusual().eval(), rows(3, 16)
    model = mmf.compile(module, "reference", example_inputs=(x,), fallback="eager")
    for other in again(model):
        assert isinstance(other, EagerModel)
        assert torch.equal(other(x), model(x))
        assert torch.equal(other(x[0]), model(x[0]))  # the module itself
        assert other.eager == model.eager
    assert len({model, model}) == 1


def test_spawned_processes() -> None:
    x = rows(3, 16)
    parted = mmf.compile(Unusual(), "reference", example_inputs=(x,), fallback="eager")
    whole = mmf.compile(Unusual().first, "cpu:portable", example_inputs=(x,))
    spawn = multiprocessing.get_context("spawn")
    for model in (parted, whole):
        queue = spawn.Queue()
        process = spawn.Process(target=call, args=(model, x, queue))
        process.start()
        found = queue.get(timeout=300)
        process.join()
        assert np.array_equal(found, model(x).numpy())


@torch.no_grad()
def test_what_happens_to_the_module_does_not_reach_the_model() -> None:
    """Training writes into its parameters; sending it to a process moves them, and frees these."""
    module, x = Unusual(), rows(3, 16)
    model = mmf.compile(module.first, "reference", example_inputs=(x,))
    before = model(x).clone()
    module.first.norm.weight.mul_(3)
    assert torch.equal(model(x), before)
    module.share_memory()
    assert torch.equal(model(x), before)
