"""Generation: what it refuses, before the first token, and what it does without a tokenizer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_launcher import VOCAB, lm_artifact, lm_session, session_of

from mmfree_compiler.errors import InputError, StateError, ToolchainError
from mmfree_compiler.runtime import tokenizer as tokenizer_module

SESSION = lm_session()
PROMPT = [72, 105, 33]


@pytest.mark.parametrize("prompts", [[], None, (), "text", ["a", ""], [[1], [VOCAB]]], ids=str)
def test_bad_batches(prompts: Any) -> None:
    with pytest.raises(InputError, match="prompt"):
        SESSION.generate_batch(prompts)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prompt": ""}, "prompt: is empty"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[1, 2]]}, "prompt"),
        ({"prompt": [1, VOCAB]}, r"id 257 at \(1,\)"),
        ({"prompt": None}, "prompt"),
        ({"max_new_tokens": 0}, "max_new_tokens: 0 is out of range"),
        ({"max_new_tokens": 1.5}, "max_new_tokens"),
        ({"temperature": -1}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0}, "top_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"seed": -1}, "seed"),
        ({"seed": "x"}, "seed"),
        ({"stop": ""}, "stop"),
        ({"stop": ["a", 1]}, "stop"),
        ({"stop": 3}, "stop"),
        ({"stop": None}, "stop"),
        ({"state": "state"}, "is of type str"),
        ({"stop_tokens": [VOCAB]}, "stop_tokens"),
        ({"stop_tokens": ["a"]}, "stop_tokens"),
    ],
    ids=str,
)
def test_bad_arguments(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SESSION.generate(**({"prompt": "Hi"} | options))


def test_states_that_do_not_fit() -> None:
    with pytest.raises(StateError, match="another model"):
        SESSION.generate("Hi", state=lm_session(seed=1).prefill("Hi"))
    with pytest.raises(StateError, match="2 sequences"):
        SESSION.generate("Hi", state=SESSION([[1], [2]])[1])


def test_artifacts_without_a_tokenizer() -> None:
    session = lm_session(tokenizer=False)
    for options in ({"prompt": "Hi"}, {"prompt": [1], "stop": "x"}):
        with pytest.raises(InputError, match="no tokenizer"):
            session.generate(**options)
    settings: dict[str, Any] = {"seed": 1, "stop_tokens": (), "max_new_tokens": 4}
    tokens, expected = (list(each.generate(PROMPT, **settings)) for each in (session, SESSION))
    assert [token.id for token in tokens] == [token.id for token in expected]
    assert {token.text for token in tokens} == {""}


def test_without_the_tokenizers_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_nothing(_: str) -> None:
        return None

    monkeypatch.setattr(tokenizer_module, "find_spec", find_nothing)
    session = lm_session()
    assert len(list(session.generate(PROMPT, max_new_tokens=2, stop_tokens=()))) == 2
    for options in ({"prompt": "Hi"}, {"prompt": [1], "stop": "x"}):
        with pytest.raises(ToolchainError, match="pip install"):
            session.generate(**options)


def test_damaged_weights() -> None:
    artifact = lm_artifact()
    weights = artifact.members["weights.bin"]
    weights.view(np.float32)[: VOCAB * 10] = np.nan
    with pytest.raises(InputError, match="logits"):
        next(session_of(artifact).generate(PROMPT))


def test_a_state_that_holds_nan() -> None:
    """It is named, before anything runs: the weights are not to blame."""
    session = lm_session()
    state = session.prefill([1, 2])
    state.states.arrays["h"][0, 1, 3] = np.nan  # type: ignore[attr-defined]
    with pytest.raises(StateError, match="state: holds NaN in 'h'"):
        session.generate([3], state=state)
    with pytest.raises(StateError, match="state: holds NaN in 'h'"):
        session.generate_batch([[3], [4]], state=state)
