"""States: values that are saved, restored, forked and batched."""

from __future__ import annotations

import json
import pickle
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_launcher import VOCAB, WIDTH, lm_artifact, lm_session
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfree_compiler.artifact import read_archive, write_archive
from mmfree_compiler.backends.interface import States
from mmfree_compiler.errors import InputError, StateError
from mmfree_compiler.runtime import State

TOKENS = np.random.default_rng(2).integers(0, VOCAB, (3, 4))


def some_state() -> State:
    _, state = lm_session()(TOKENS)
    return state


def assert_equal(a: State, b: State) -> None:
    found, expected = a.export(), b.export()
    assert found.keys() == expected.keys()
    assert all(np.array_equal(found[name], expected[name]) for name in found)
    assert (a.model, a.length, a.slots) == (b.model, b.length, b.slots)


def test_save_and_load(tmp_path: Path) -> None:
    state = some_state()
    state.save(tmp_path / "state")
    loaded = State.load(tmp_path / "state")
    assert_equal(loaded, state)
    expected = lm_session()(TOKENS, state)[0]
    assert np.array_equal(lm_session()(TOKENS, loaded)[0], expected)
    assert [path.name for path in tmp_path.iterdir()] == ["state"]


def test_save_of_rows(tmp_path: Path) -> None:
    some_state()[1:].save(tmp_path / "state")
    assert_equal(State.load(tmp_path / "state"), some_state()[1:])


def test_repr_is_short() -> None:
    state, model = some_state(), lm_artifact().manifest.fingerprint[:8]
    assert repr(state) == f"State(3 sequences, 4 tokens, model {model})"
    other = lm_session().zero_state(1)
    lm_session().advance([[1]], other)
    both = State.stack([state, other])
    assert repr(both) == f"State(4 sequences, 1 to 4 tokens, model {model})"
    assert repr(both[3:]) == f"State(1 sequence, 1 token, model {model})"
    assert repr(both[:0]) == f"State(0 sequences, 0 tokens, model {model})"
    assert repr(pickle.loads(pickle.dumps(both))) == repr(both)


def test_damaged_files_are_to_be_saved_again(tmp_path: Path) -> None:
    path = tmp_path / "state"
    some_state().save(path)
    path.write_bytes(path.read_bytes()[:-30])
    with pytest.raises(StateError, match=r"Get the file or save the state again$"):
        State.load(path)


def test_fork_shares_nothing() -> None:
    state = some_state()
    fork = state.fork()
    assert_equal(fork, state)
    lm_session().advance(TOKENS, fork)
    assert_equal(state, some_state())


def test_stack_and_rows() -> None:
    state = some_state()
    rows = [state[0], state[-2], state[2]]
    assert [row.length for row in rows] == [(4,)] * 3
    assert len(rows[0]) == 1
    assert_equal(State.stack(rows), state)
    assert_equal(State.stack([state[:2], state[2:]]), state)
    for index in (3, -4):
        with pytest.raises(IndexError):
            state[index]


@pytest.mark.parametrize("index", ["a", None, 1.5, True])
def test_what_is_no_index(index: Any) -> None:
    with pytest.raises(InputError, match=f"^sequence {index!r}: is not a whole number. Pass"):
        some_state()[index]


def test_stack_of_different_models() -> None:
    other = lm_session(seed=1)(TOKENS)[1]
    for states in ([], [some_state(), other]):
        with pytest.raises(StateError, match="states"):
            State.stack(states)


def test_parts_are_copies() -> None:
    state = some_state()
    h = state.part("h")
    assert h.shape == (3, 2, WIDTH)
    h[:] = 7
    assert_equal(state, some_state())
    with pytest.raises(StateError, match="Parts: h"):
        state.part("g")


def test_the_model_is_its_fingerprint() -> None:
    assert some_state().model == lm_session(tokenizer=False)(TOKENS)[1].model
    assert some_state().model != lm_session(seed=1)(TOKENS)[1].model


def test_states_of_another_target_continue() -> None:
    """A state goes through NumPy where the launcher keeps states of another kind."""
    state = some_state()
    foreign = replace(state, states=Foreign(state.states))
    expected, after = lm_session()(TOKENS, state)
    logits, found = lm_session()(TOKENS, foreign)
    assert np.array_equal(logits, expected)
    assert_equal(found, after)
    assert np.array_equal(lm_session().advance(TOKENS, foreign), expected)
    assert_equal(foreign, after)


class Foreign:
    """States that can only be exported."""

    def __init__(self, states: States) -> None:
        self._states = states

    def __len__(self) -> int:
        return len(self._states)

    def take(self, rows: Any) -> Foreign:
        return Foreign(self._states.take(rows))

    def put(self, rows: Any, other: States) -> None:
        self._states.put(rows, other)

    def export(self) -> dict[str, Any]:
        return self._states.export()


def saved(folder: Path) -> tuple[Path, bytes]:
    path = folder / "state"
    some_state().save(path)
    return path, path.read_bytes()


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_damage(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    path, sound = saved(tmp_path_factory.mktemp("damage"))
    at = data.draw(st.integers(0, len(sound) - 1))
    bit = 1 << data.draw(st.integers(0, 7))
    cut = data.draw(st.booleans())
    path.write_bytes(sound[:at] + (b"" if cut else bytes([sound[at] ^ bit]) + sound[at + 1 :]))
    try:
        loaded = State.load(path)
    except StateError:
        return
    assert not cut
    assert_equal(loaded, some_state())


@pytest.mark.parametrize(
    "changes",
    [
        {"length": []},
        {"length": [1, 2]},
        {"length": [-1, 1, 1]},
        {"length": [1 << 62, 1, 1]},
        {"length": [10**40, 1, 1]},
        {"schema_version": 1},
        {"schema_version": 3},
        {"model": 1},
        {"extra": 1},
        {"slots": [{"name": "h", "shape": [16]}]},
        {"slots": [{"name": "h", "shape": [10]}] * 2},
        {"slots": []},
    ],
    ids=str,
)
def test_wrong_headers(tmp_path: Path, changes: dict[str, Any]) -> None:
    path = rewritten(tmp_path, changes)
    with pytest.raises(StateError):
        State.load(path)


@pytest.mark.parametrize(
    "slot",
    [{"name": "x", "shape": [WIDTH], "count": 2}, {"name": "h", "shape": [2 * WIDTH]}],
    ids=str,
)
def test_a_file_whose_arrays_are_not_the_models(tmp_path: Path, slot: dict[str, Any]) -> None:
    """It claims to be of the model, and is consistent in itself."""
    state = State.load(rewritten(tmp_path, {"slots": [slot]}))
    with pytest.raises(StateError, match="belongs to another model"):
        lm_session()(TOKENS, state)
    with pytest.raises(StateError, match="belongs to another model"):
        lm_session().advance(TOKENS, state)
    with pytest.raises(StateError, match="different models"):
        State.stack([state, some_state()])


def rewritten(folder: Path, changes: dict[str, Any]) -> Path:
    """A state file whose header has `changes`."""
    path, _ = saved(folder)
    members = {name: data.copy() for name, data in read_archive(path).members.items()}
    header = json.loads(members["state.json"].tobytes()) | changes
    members["state.json"] = np.frombuffer(json.dumps(header).encode(), np.uint8)
    write_archive(path, members)
    return path


def test_files_that_are_no_state(tmp_path: Path) -> None:
    lm_artifact().save(tmp_path / "model.mmfree")
    for path in (tmp_path / "absent", tmp_path, tmp_path / "model.mmfree"):
        with pytest.raises(StateError):
            State.load(path)
    with pytest.raises(StateError, match="cannot be written"):
        some_state().save(tmp_path / "absent" / "state")
