"""Calls of a session: exactness, padding, states, frameworks, bad input."""

from __future__ import annotations

import subprocess
import sys
import threading
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
)
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfree_compiler.errors import ArtifactError, InputError, StateError, TargetError
from mmfree_compiler.runtime import Session, launcher, load

TOKENS = np.random.default_rng(1).integers(0, VOCAB, (3, 9))


def test_rows_are_exact_as_if_alone() -> None:
    session = lm_session()
    logits, state = session(TOKENS)
    assert logits.shape == (3, 9, VOCAB)
    assert logits.dtype == np.float32
    assert np.isfinite(logits).all()
    for row in range(3):
        alone, own_state = session(TOKENS[row : row + 1])
        assert np.array_equal(logits[row], alone[0])
        assert np.array_equal(state.array[row], own_state.array[0])
    assert state.length == (9, 9, 9)


def test_one_launch_and_no_copy_of_the_logits() -> None:
    session = lm_session()
    logits, _ = session(TOKENS)
    assert calls_of(session) == [(27, 0)]
    assert logits.strides == (9 * 272 * 4, 272 * 4, 4)  # a view of the kernel's padded rows


@settings(max_examples=30, deadline=None)
@given(st.integers(1, 8))
def test_state_carries_on(cut: int) -> None:
    session = lm_session()
    whole, end = session(TOKENS)
    first, state = session(TOKENS[:, :cut])
    kept = state.array.copy()
    second, last = session(TOKENS[:, cut:], state)
    assert np.array_equal(np.concatenate([first, second], 1), whole)
    assert np.array_equal(last.array, end.array)
    assert last.length == (9, 9, 9)
    assert np.array_equal(state.array, kept)  # the input state is a value


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
        assert np.array_equal(state.array[row], own_state.array[0])
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
        ([[1], [1, 2]], "no array"),
        ([[1 << 70]], "dtype object"),
        (torch.ones(1, 1), "float32"),
        (torch.ones(1, 1, dtype=torch.bfloat16), "no array"),
        (torch.ones(1, 1, dtype=torch.int64, device="meta"), "no array"),
        (None, "shape"),
    ],
    ids=str,
)
def test_bad_tokens(tokens: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        lm_session()(tokens)


def test_states_of_others() -> None:
    session = lm_session()
    _, state = session(TOKENS)
    other = session.artifact.manifest.states[0].model_copy(update={"name": "other"})
    with pytest.raises(StateError, match="3 sequences, the call has 2"):
        session(TOKENS[:2], state)
    with pytest.raises(StateError, match="1 sequence, the call has 3"):
        session(TOKENS, state[0])
    with pytest.raises(StateError, match="another model"):
        lm_session(seed=1)(TOKENS, state)
    with pytest.raises(StateError, match="another model"):
        lm_session(states=(other,))(TOKENS, state)
    with pytest.raises(StateError, match="is a ndarray"):
        session(TOKENS, state.array)


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


def test_load_takes_the_launcher_from_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(launcher.LAUNCHERS, "cpu", "fake_launcher:FakeLauncher")
    lm_artifact().save(tmp_path / "model.mmfree")
    session = load(tmp_path / "model.mmfree", threads=3)
    found = session.language_model._runner.launcher
    assert isinstance(found, FakeLauncher)
    assert found.threads == session.threads == 3
    assert np.array_equal(session(TOKENS)[0], lm_session()(TOKENS)[0])


def test_sessions_over_one_artifact_share_its_weights(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(launcher.LAUNCHERS, "cpu", "fake_launcher:FakeLauncher")
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
    with pytest.raises(TargetError, match="has no launcher"):
        Session(lm_artifact(target="reference"))
    with pytest.raises(TargetError, match="unknown"):
        Session(lm_artifact(target="abacus"))


def test_load_of_no_artifact(tmp_path: Path) -> None:
    (tmp_path / "model.mmfree").write_bytes(b"no")
    with pytest.raises(ArtifactError):
        load(tmp_path / "model.mmfree")


# --- modules ---------------------------------------------------------------------------------


def recurrence(x: Any) -> Any:
    """What FakeLauncher computes for a module of one input: (..., T, D)."""
    out, h = np.empty_like(x), np.zeros_like(x[..., 0, :])
    for t in range(x.shape[-2]):
        out[..., t, :], h = x[..., t, :] + h, h / 2 + x[..., t, :]
    return out


@pytest.mark.parametrize("shape", [(5,), (2, 5), (2, 3, 5), (1, 1)])
def test_module_leading_dimensions(shape: tuple[int, ...]) -> None:
    x = np.random.default_rng(0).standard_normal((*shape, WIDTH)).astype(np.float32)
    session = module_session()
    for _ in range(2):  # the state begins at zero each time
        assert np.array_equal(session(x), recurrence(x))
    assert np.array_equal(session(torch.tensor(x)).numpy(), recurrence(x))


def test_module_one_row() -> None:
    x = np.ones(WIDTH, np.float32)
    assert np.array_equal(module_session()(x), x)


def test_module_of_several_inputs_and_outputs() -> None:
    session = module_session(inputs=("a", "b"), outputs=("y", "z"))
    x = torch.randn(2, WIDTH, requires_grad=True)
    y, z = session(x, torch.ones(2, WIDTH))
    assert torch.equal(y, z)
    assert torch.equal(y[0], x[0].detach() + 1)


def test_module_rows_are_padded_only_where_needed() -> None:
    session = module_session(width=16)
    wide = np.ones((2, 16), np.float32)
    assert session(wide).shape == (2, 16)
    assert session(wide[:, ::-1].astype(np.float64)).shape == (2, 16)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ((), "0 given.*a, b"),
        ((np.ones((2, WIDTH)),), "1 given"),
        ((np.ones((2, 3)), np.ones((2, WIDTH))), "a: has shape"),
        ((np.ones((2, WIDTH)), np.ones((3, WIDTH))), "different leading"),
        ((np.ones((0, WIDTH)), np.ones((0, WIDTH))), "a: is empty"),
        ((np.ones((2, WIDTH), complex), np.ones((2, WIDTH))), "complex"),
        ((1.0, 2.0), "a: has shape"),
    ],
    ids=["none", "one", "width", "leading", "empty", "complex", "scalars"],
)
def test_bad_module_inputs(inputs: tuple[Any, ...], message: str) -> None:
    with pytest.raises(InputError, match=message):
        module_session(inputs=("a", "b"))(*inputs)


def test_a_module_generates_nothing() -> None:
    with pytest.raises(InputError, match="is not a language model"):
        module_session().generate([1])


def test_importing_the_runtime_imports_no_compiler() -> None:
    program = (
        "import sys, mmfree_compiler.runtime\n"
        "heavy = {'torch', 'tvm', 'triton', 'onnx', 'networkx', 'tokenizers', 'typer', 'rich'}\n"
        "sys.exit(', '.join(sorted(heavy & sys.modules.keys())) or None)\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
