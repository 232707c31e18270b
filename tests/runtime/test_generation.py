"""Generation: streams, seeds, stops, prefixes, and batches that are exact as if alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_launcher import END, VOCAB, calls_of, lm_session, same_states
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfree_compiler.artifact import Port
from mmfree_compiler.errors import InputError, StateError
from mmfree_compiler.runtime import Sampling, Session, Token
from mmfree_compiler.runtime import generation as generation_module
from mmfree_compiler.runtime.next_token import sample

SESSION = lm_session()
PROMPT = [72, 105, 33]


def ids_of(prompt: Any, session: Session = SESSION, **options: Any) -> list[int]:
    return [token.id for token in session.generate(prompt, **options)]


def test_greedy_is_argmax_of_the_logits() -> None:
    found = ids_of(PROMPT, temperature=0, max_new_tokens=6, stop_tokens=())
    tokens = list(PROMPT)
    for _ in range(6):
        tokens.append(int(SESSION([tokens])[0][0, -1].argmax()))
    assert found == tokens[3:]


def test_prefill_makes_one_row_of_logits_and_decode_one_token() -> None:
    session = lm_session()
    ids_of(PROMPT, session, max_new_tokens=3, stop_tokens=())
    assert calls_of(session) == [(3, 1), (1, 1), (1, 1)]


def test_same_seed_same_text() -> None:
    texts = [
        "".join(token.text for token in SESSION.generate("Hi", seed=seed, max_new_tokens=40))
        for seed in (1, 1, 2)
    ]
    assert texts[0] == texts[1] != texts[2]
    assert ids_of(PROMPT) != ids_of(PROMPT)  # random seeds


def test_tokens_are_drawn_by_seed_and_position() -> None:
    """Positions count from the start of the sequence, whatever part of it is in the state."""
    found = ids_of(PROMPT, seed=5, max_new_tokens=6, stop_tokens=())
    tokens = list(PROMPT)
    for position in range(3, 9):
        logits = SESSION([tokens])[0][0, -1]
        chosen, _ = sample(logits, np.zeros(VOCAB, np.bool_), Sampling(), 5, position)
        tokens.append(chosen)
    assert found == tokens[3:]


@pytest.mark.parametrize("cut", [1, 4])
def test_generating_again_from_the_middle(cut: int) -> None:
    """With the same seed a generation goes on as if it had not ended, on a state or on ids."""
    options: dict[str, Any] = {"seed": 6, "stop_tokens": ()}
    whole = ids_of(PROMPT, max_new_tokens=8, **options)
    read, rest = [*PROMPT, *whole[:cut]], whole[cut:]
    assert ids_of(read, max_new_tokens=8 - cut, **options) == rest
    state = SESSION.prefill(read[:-1])
    assert ids_of(read[-1:], state=state, max_new_tokens=8 - cut, **options) == rest


def test_forks_of_a_state_differ_by_seed() -> None:
    state = SESSION.prefill(PROMPT)
    one, same, other = (ids_of("a", state=state, seed=seed, stop_tokens=()) for seed in (1, 1, 2))
    assert one == same != other


@pytest.mark.parametrize("before", [0, 1, 3])
def test_a_generation_interrupted_in_the_middle_of_a_token(
    before: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = lm_session()
    generation = session.generate(PROMPT, seed=0, max_new_tokens=9, stop_tokens=())
    for _ in range(before):
        next(generation)
    text, state = generation.text, generation.state

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        # By the time a token is drawn, the state has seen the pending ids.
        patch.setattr(generation_module, "sample", interrupted)
        with pytest.raises(KeyboardInterrupt):
            next(generation)
    with pytest.raises(StateError, match="generation: was interrupted in the middle of a token"):
        next(generation)
    with pytest.raises(StateError, match="generation: was interrupted in the middle of a token"):
        _ = generation.state
    assert (len(generation.ids), generation.text) == (before, text)
    again = session.generate([*PROMPT, *generation.ids], seed=0, max_new_tokens=1)
    assert next(again).id in range(VOCAB)
    assert len(state) == len(again.state)


def test_the_attributes_of_a_generation() -> None:
    generation = SESSION.generate(PROMPT, seed=3, max_new_tokens=5, stop_tokens=())
    assert (generation.tokens, generation.text, generation.finish_reason) == ([], "", None)
    tokens = list(generation)
    assert tokens == generation.tokens
    assert generation.ids == [token.id for token in tokens]
    assert generation.text == "".join(token.text for token in tokens)
    assert generation.text == SESSION.tokenizer.decode(generation.ids)  # type: ignore[union-attr]
    assert generation.finish_reason == "length"
    assert list(generation) == []


def test_logprobs_are_the_models_own() -> None:
    token: Token = next(SESSION.generate(PROMPT, temperature=0.1, top_k=3, seed=0))
    logits = SESSION([PROMPT])[0][0, -1].astype(np.float64)
    expected = logits[token.id] - np.log(np.exp(logits).sum())
    assert abs(token.logprob - expected) < 1e-9  # float64, summed in another order


def test_models_that_read_more_tokens_than_they_say() -> None:
    logits = Port(name="logits", dtype="float32", width=200)
    session = lm_session(outputs=(logits,), model={})
    assert session([[256]])[0].shape == (1, 1, 200)
    found = ids_of([256, 199], session, repetition_penalty=1.5, max_new_tokens=20)
    assert len(found) == 20
    assert max(found) < 200


def test_text_and_its_ids_are_one_prompt() -> None:
    assert ids_of("Hi!", seed=1) == ids_of(PROMPT, seed=1) == ids_of(np.array(PROMPT), seed=1)


# --- ends ------------------------------------------------------------------------------------


def greedy(count: int = 12) -> list[int]:
    return ids_of(PROMPT, temperature=0, max_new_tokens=count, stop_tokens=())


def test_stop_tokens_end_it_without_text() -> None:
    expected = greedy()
    stop = expected[4]
    cut = expected.index(stop) + 1
    generation = SESSION.generate(PROMPT, temperature=0, stop_tokens=[stop])
    assert [token.id for token in generation] == expected[:cut]
    assert generation.finish_reason == "stop_token"
    assert generation.text == SESSION.tokenizer.decode(expected[: cut - 1])  # type: ignore[union-attr]
    assert ids_of(PROMPT, temperature=0, stop_tokens=stop) == expected[:cut]


@pytest.mark.parametrize("listed", [False, True])
def test_the_models_end_of_text_is_the_default_stop(listed: bool) -> None:
    end = greedy()[2]
    session = lm_session(model={"eos_token_id": [END, end] if listed else end})
    found = ids_of(PROMPT, session, temperature=0)
    assert found == greedy()[: greedy().index(end) + 1]


@pytest.mark.parametrize("model", [{}, {"eos_token_id": None}, {"eos_token_id": "2"}])
def test_models_without_an_end_of_text(model: dict[str, Any]) -> None:
    assert len(ids_of(PROMPT, lm_session(model=model), max_new_tokens=9)) == 9


def scripted(monkeypatch: pytest.MonkeyPatch, text: bytes) -> None:
    """Make every generation choose the bytes of `text`, one per token, whatever the logits."""
    at = iter(text)
    monkeypatch.setattr(generation_module, "sample", lambda *_: (next(at), -1.0))


def test_a_stop_string_over_several_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, b"one\n\ntwo")
    generation = SESSION.generate(PROMPT, stop="\n\n")
    assert [token.text for token in generation] == ["o", "n", "e", "", ""]
    assert generation.finish_reason == "stop_string"
    assert generation.text == "one"


def test_what_a_stop_string_held_back_comes_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, b"abc")
    generation = SESSION.generate(PROMPT, stop=["cd", "abx"], max_new_tokens=3)
    assert [token.text for token in generation] == ["", "", "abc"]
    assert generation.finish_reason == "length"


def test_characters_of_several_tokens(monkeypatch: pytest.MonkeyPatch) -> None:
    scripted(monkeypatch, "é€".encode() + b"\xe2\x82" + bytes(1))
    generation = SESSION.generate(PROMPT, stop_tokens=[0])
    pieces = [token.text for token in generation]
    assert pieces == ["", "é", "", "", "€", "", "", "\N{REPLACEMENT CHARACTER}"]


# --- states ----------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(st.integers(1, 5), st.integers(1, 4))
def test_continuing_from_a_prefix(cut: int, count: int) -> None:
    prompt = [5, 6, 7, 8, 9, 10]
    prefix = SESSION.prefill(prompt[:cut])
    kept = prefix.fork()
    options: dict[str, Any] = {"seed": 4, "max_new_tokens": count, "stop_tokens": ()}
    assert ids_of(prompt[cut:], state=prefix, **options) == ids_of(prompt, **options)
    assert same_states(prefix, kept)
    assert prefix.length == (cut,)
    again = SESSION.prefill(prompt[cut:], prefix)
    assert same_states(again, SESSION.prefill(prompt))


def test_prefill_makes_no_logits() -> None:
    session = lm_session()
    session.prefill("Hello")
    assert calls_of(session) == [(5, 0)]


def test_the_state_is_after_every_token() -> None:
    generation = SESSION.generate(PROMPT, seed=0, max_new_tokens=4, stop_tokens=())
    for count in range(5):
        seen = PROMPT + generation.ids
        assert len(generation.ids) == count
        state = generation.state
        assert same_states(state, SESSION.prefill(seen))
        assert state.length == (3 + count,)
        next(generation, None)


def test_two_generations_take_turns() -> None:
    one, two = (SESSION.generate(PROMPT, seed=seed, stop_tokens=()) for seed in (1, 2))
    pairs = [(next(one).id, next(two).id) for _ in range(5)]
    assert [a for a, _ in pairs] == ids_of(PROMPT, seed=1, max_new_tokens=5, stop_tokens=())
    assert [b for _, b in pairs] == ids_of(PROMPT, seed=2, max_new_tokens=5, stop_tokens=())


# --- batches ---------------------------------------------------------------------------------

PROMPTS = st.lists(
    st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=6), min_size=1, max_size=4
)


@settings(max_examples=25, deadline=None)
@given(PROMPTS, st.integers(0, 1000), st.booleans())
def test_batches_are_exact_as_if_alone(prompts: list[list[int]], seed: int, prefix: bool) -> None:
    options: dict[str, Any] = {
        "max_new_tokens": 6,
        "top_k": 20,
        "repetition_penalty": 1.2,
        "stop_tokens": range(0, VOCAB, 9),  # so that rows end at different times
        "state": SESSION.prefill("prefix") if prefix else None,
    }
    together = SESSION.generate_batch(prompts, seed=seed, **options)
    for i, (prompt, found) in enumerate(zip(prompts, together, strict=True)):
        alone = SESSION.generate(prompt, seed=seed + i, **options)
        assert found.tokens == list(alone)
        assert found.text == alone.text
        assert found.finish_reason == alone.finish_reason
        assert same_states(found.state, alone.state)
        assert found.state.length == alone.state.length


def test_batches_decode_side_by_side() -> None:
    session = lm_session()
    session.generate_batch(["a", "bcd"], max_new_tokens=3, stop_tokens=())
    assert calls_of(session) == [(1, 1), (3, 1), (2, 2), (2, 2)]


def test_seeds_of_a_batch() -> None:
    options: dict[str, Any] = {"max_new_tokens": 8, "stop_tokens": ()}
    found = SESSION.generate_batch(["x", "x"], seed=[7, 7], **options)
    assert found[0].ids == found[1].ids == ids_of("x", seed=7, **options)
    with pytest.raises(InputError, match=r"2 seeds for 1 prompt\."):
        SESSION.generate_batch(["x"], seed=[1, 2])
    assert len(SESSION.generate_batch(["x", "x"])) == 2
