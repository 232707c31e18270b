"""Calls of a session: exactness, padding, states, frameworks, bad input."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from fake_launcher import (
    VOCAB,
    WIDTH,
    FakeLauncher,
    calls_of,
    lm_artifact,
    lm_session,
    module_session,
    same_states,
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfree_compiler.backends.cpu import BACKEND
from mmfree_compiler.compiled_model import CompiledModel
from mmfree_compiler.errors import ArtifactError, InputError, StateError, TargetError
from mmfree_compiler.runtime import Session, load

TOKENS = np.random.default_rng(1).integers(0, VOCAB, (3, 9))
X = np.ones((2, WIDTH), np.float32)


def test_rows_are_exact_as_if_alone() -> None:
    session = lm_session()
    logits, state = session(TOKENS)
    assert logits.shape == (3, 9, VOCAB)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    for row in range(3):
        alone, own_state = session(TOKENS[row : row + 1])
        assert np.array_equal(logits[row], alone[0])
        assert same_states(state[row], own_state)
    assert state.length == (9, 9, 9)


def test_one_launch() -> None:
    session = lm_session()
    session(TOKENS)
    assert calls_of(session) == [(27, 27)]


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8))
def test_state_carries_on(cut: int) -> None:
    session = lm_session()
    whole, end = session(TOKENS)
    first, state = session(TOKENS[:, :cut])
    kept = state.fork()
    second, last = session(TOKENS[:, cut:], state)
    assert np.array_equal(np.concatenate([first, second], 1), whole)
    assert same_states(last, end)
    assert last.length == (9, 9, 9)
    assert same_states(state, kept)  # the input state is a value


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(0, 8), min_size=3, max_size=3))
def test_left_padding_is_not_run(pads: list[int]) -> None:
    session = lm_session()
    mask = np.arange(9) >= np.array(pads)[:, None]
    logits, state = session(TOKENS, mask=mask)
    for row, pad in enumerate(pads):
        alone, own_state = session(TOKENS[row : row + 1, pad:])
        assert np.array_equal(logits[row, pad:], alone[0])
        assert not logits[row, :pad].any()
        assert same_states(state[row], own_state)
    assert state.length == tuple(9 - pad for pad in pads)


@pytest.mark.parametrize(
    "mask",
    [
        [[1, 1, 0], [1, 1, 1]],
        [[1, 0, 1], [1, 1, 1]],
        [[1, 1, 1], [0, 0, 0]],
        [[1, 1, 1]],
        [[1, 1, 2], [1, 1, 1]],
        [[1, 1, 0.5], [1, 1, 1]],
        [["a", "b", "c"], ["a", "b", "c"]],
        [[1, 1], [1, 1, 1]],
    ],
    ids=str,
)
def test_masks_that_are_no_left_padding(mask: Any) -> None:
    with pytest.raises(InputError, match="mask"):
        lm_session()(TOKENS[:2, :3], mask=mask)


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32])
def test_torch_in_torch_out(dtype: torch.dtype) -> None:
    session = lm_session()
    logits, state = session(torch.tensor(TOKENS, dtype=dtype), mask=torch.ones(3, 9))
    assert isinstance(logits, torch.Tensor)
    assert logits.dtype == torch.float32
    again, _ = session(torch.tensor(TOKENS[:, :1]), state)
    expected = session(np.concatenate([TOKENS, TOKENS[:, :1]], 1))[0]
    assert np.array_equal(torch.cat([logits, again], 1).numpy(), expected)


def test_lists_and_awkward_arrays() -> None:
    session, frozen = lm_session(), TOKENS.copy()
    frozen.flags.writeable = False
    unaligned = np.frombuffer(b"x" + TOKENS.tobytes(), np.int64, offset=1).reshape(TOKENS.shape)
    expected = session(TOKENS)[0]
    for tokens in (
        TOKENS.tolist(),
        frozen,
        unaligned,
        np.asfortranarray(TOKENS),
        TOKENS.astype(np.uint16),
    ):
        logits = session(tokens)[0]
        assert isinstance(logits, np.ndarray)
        assert np.array_equal(logits, expected)


@pytest.mark.parametrize(
    ("tokens", "message"),
    [
        ([[1, 2, VOCAB]], r"id 257 at \(0, 2\) is outside the vocabulary\. Ids are 0 to 256"),
        ([[1], [-1]], r"id -1 at \(1, 0\)"),
        ([1, 2], r"shape \(2,\).*\(B, T\)"),
        ([[]], r"shape \(1, 0\)"),
        (np.zeros((0, 3), int), r"shape \(0, 3\)"),
        ([[1.0]], "float64"),
        ([[True]], "bool"),
        ([["a"]], "dtype"),
        ([[1], [1, 2]], "cannot be read as an array"),
        ([[1 << 70]], "dtype object"),
        (torch.ones(1, 1), "float32"),
        (torch.ones(1, 1, dtype=torch.bfloat16), "float32"),
        (torch.ones(1, 1, dtype=torch.int64, device="meta"), "cannot be read as an array"),
        (None, "has type NoneType"),
    ],
    ids=str,
)
def test_bad_tokens(tokens: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        lm_session()(tokens)


def test_states_of_others() -> None:
    session = lm_session()
    _, state = session(TOKENS)
    with pytest.raises(StateError, match="3 sequences, the call has 2"):
        session(TOKENS[:2], state)
    with pytest.raises(StateError, match="1 sequence, the call has 3"):
        session(TOKENS, state[0])
    with pytest.raises(StateError, match="another model"):
        lm_session(seed=1)(TOKENS, state)
    with pytest.raises(StateError, match="is of type ndarray"):
        session(TOKENS, state.part("h"))


def test_several_threads_share_a_session() -> None:
    session = lm_session()
    expected = session(TOKENS)[0]
    found: list[Any] = []

    def call() -> None:
        for _ in range(5):
            found.append(session(TOKENS)[0])

    threads = [threading.Thread(target=call) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 20
    assert all(np.array_equal(logits, expected) for logits in found)


def test_load_takes_the_launcher_of_the_target(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BACKEND, "launcher", lambda: FakeLauncher)
    lm_artifact().save(tmp_path / "model.mmfree")
    session = load(tmp_path / "model.mmfree", threads=3)
    assert isinstance(session.launcher, FakeLauncher)
    assert session.launcher.threads == 3
    assert np.array_equal(session(TOKENS)[0], lm_session()(TOKENS)[0])


def test_sessions_over_one_artifact_share_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BACKEND, "launcher", lambda: FakeLauncher)
    lm_artifact().save(tmp_path / "model.mmfree")
    first = load(tmp_path / "model.mmfree")
    second = Session(first.artifact)
    assert np.shares_memory(first.artifact.tensor("head"), second.artifact.tensor("head"))
    assert not first.artifact.tensor("head").flags.owndata


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2", 257, 10**9, 10**30])
def test_bad_threads(threads: Any) -> None:
    with pytest.raises(InputError, match="threads"):
        Session(lm_artifact(), threads)


def test_targets_without_a_launcher() -> None:
    with pytest.raises(TargetError, match="in the process that compiled it"):
        Session(lm_artifact(targets=("reference",)))
    with pytest.raises(TargetError, match="unknown"):
        Session(lm_artifact(targets=("abacus",)))


def test_load_of_no_artifact(tmp_path: Path) -> None:
    (tmp_path / "model.mmfree").write_bytes(b"no")
    with pytest.raises(ArtifactError):
        load(tmp_path / "model.mmfree")


def test_options_that_the_target_does_not_take() -> None:
    with pytest.raises(InputError, match=r"'device': is not an option .*cpu\. Known: threads"):
        Session(lm_artifact(), device=1)
    with pytest.raises(InputError, match="'threads': is not an option of target reference"):
        Session(lm_artifact(targets=("reference",)), threads=1)


def test_importing_the_runtime_imports_no_compiler() -> None:
    program = (
        "import sys, mmfree_compiler.runtime\n"
        "heavy = {'torch', 'tvm', 'triton', 'onnx', 'networkx', 'tokenizers', 'typer', 'rich'}\n"
        "sys.exit(', '.join(sorted(heavy & sys.modules.keys())) or None)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda lm, _: lm(), r"missing a required argument: 'tokens'. Call session\(tokens\)"),
        (lambda lm, _: lm([[1]], foo=1), "unexpected keyword argument 'foo'. Call session"),
        (lambda lm, _: lm([[1]], None, None), "too many positional arguments. Call session"),
        (lambda _, rows: rows(X, foo=1), "argument 'foo'. Pass the inputs of the module alone"),
        (lambda _, rows: rows(X, mask=X), "argument 'mask'. Pass the inputs of the module alone"),
    ],
)
def test_arguments_that_a_call_does_not_take(call: Callable[..., Any], message: str) -> None:
    with pytest.raises(InputError, match="^arguments of the call: .*" + message):
        call(lm_session(), module_session())


def test_a_closed_session_says_so(tiny_artifact: Path) -> None:
    session = load(tiny_artifact, 1)
    state = session.prefill([1, 2])
    generation = session.generate([1, 2])
    next(generation)
    with session:
        pass
    session.close()  # again
    for call in (
        lambda: session([[1]]),
        lambda: session([[1]], state),
        lambda: session.advance([[1]], state),
        lambda: session.prefill([1]),
        lambda: session.generate([1]),
        lambda: session.zero_state(),
        lambda: session.launcher.build,
        lambda: next(generation),
    ):
        with pytest.raises(InputError, match=r"session: is closed\. Load"):
            call()


def test_repr_is_short(tiny_artifact: Path) -> None:
    lm = "language model, 2 layers, 64 wide, target cpu:portable"
    session = load(tiny_artifact, 1)
    runs = "runs portable on cpu"
    assert repr(session) == f'Session("tiny.mmfree": {lm}, {runs})'
    assert repr(session.artifact) == f'Artifact("tiny.mmfree": {lm})'
    assert repr(pickle.loads(pickle.dumps(session))) == f"Session({lm}, {runs})"
    assert repr(CompiledModel(session.artifact)) == f'CompiledModel("tiny.mmfree": {lm})'
    session.close()
    assert repr(session) == f'Session("tiny.mmfree": {lm}, closed)'
    of_two = module_session(inputs=("a", "b")).artifact
    assert repr(of_two) == "Artifact(module of a (..., 10), b (..., 10), target cpu)"


@pytest.mark.parametrize("model", [{}, {"num_hidden_layers": "\x1b[2J", "hidden_size": [1]}])
def test_repr_of_odd_models(model: dict[str, Any]) -> None:
    odd = lm_artifact().rebuilt({}, {"target": "a\x1b[2J"}, model=model)
    assert repr(odd) == "Artifact(language model, target a\\x1b[2J)"
