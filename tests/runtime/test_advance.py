"""States that move on in place."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_launcher import VOCAB, lm_session, same_states
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfree_compiler.errors import InputError, StateError

TOKENS = np.random.default_rng(1).integers(0, VOCAB, (3, 9))


@settings(max_examples=30, deadline=None)
@given(st.lists(st.integers(1, 3), min_size=1, max_size=5))
def test_advance_is_a_call_without_the_copy(cuts: list[int]) -> None:
    session, state = lm_session(), lm_session().zero_state(3)
    held = state.states
    expected = None
    at = 0
    for cut in cuts:
        tokens = TOKENS[:, at : at + cut] if at + cut <= 9 else TOKENS[:, :cut]
        logits = session.advance(tokens, state)
        wanted, expected = lm_session()(tokens, expected)
        assert np.array_equal(logits, wanted)
        at += cut
    assert expected is not None
    assert same_states(state, expected)
    assert state.length == expected.length
    assert state.states is held


def test_advance_with_padding() -> None:
    session, mask = lm_session(), np.arange(9) >= np.array([[2], [0], [5]])
    state = session.zero_state(3)
    logits = session.advance(TOKENS, state, mask=mask)
    expected, after = session(TOKENS, mask=mask)
    assert np.array_equal(logits, expected)
    assert state.length == after.length == (7, 9, 4)


def test_advance_checks_its_state() -> None:
    session = lm_session()
    with pytest.raises(StateError, match="is of type NoneType"):
        session.advance(TOKENS, None)  # type: ignore[arg-type]
    with pytest.raises(StateError, match="another model"):
        session.advance(TOKENS, lm_session(seed=1).zero_state(3))
    with pytest.raises(StateError, match="2 sequences, the call has 3"):
        session.advance(TOKENS, session.zero_state(2))


@pytest.mark.parametrize("batch", [0, -1, 1.5, "2", None])
def test_bad_batches_of_zero_states(batch: Any) -> None:
    with pytest.raises(InputError, match="is not a whole number"):
        lm_session().zero_state(batch)


def test_a_state_of_no_sequences_is_not_saved(tmp_path: Path) -> None:
    with pytest.raises(StateError, match="has no sequences"):
        lm_session().zero_state(2)[0:0].save(tmp_path / "state")
