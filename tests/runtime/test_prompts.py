"""Prompts: special tokens in a text, long texts; stop texts that are special tokens."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from fake_launcher import END, lm_artifact, lm_session, session_of
from sample_tokenizers import FAMILIES, source

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.errors import InputError
from mmfree_compiler.runtime import Sampling
from mmfree_compiler.runtime.prompts import Reading
from mmfree_compiler.runtime.tokenizer import Tokenizer

SESSION = lm_session()
END_TEXT = "<|endoftext|>"
ALLOWED = Reading(allow_special_tokens=True)


def test_special_tokens_in_a_text_are_plain_text() -> None:
    assert SESSION.encode(f"a{END_TEXT}").tolist() == [*b"a", *END_TEXT.encode()]
    ids = SESSION.encode(f"a{END_TEXT}b", allow_special_tokens=True)
    assert ids.tolist() == [97, END, 98]


@pytest.mark.parametrize("name", ["generate", "prefill", "generate_batch"])
def test_every_call_with_text_takes_them(name: str) -> None:
    prompt: Any = [END_TEXT] if name == "generate_batch" else END_TEXT
    call: Any = getattr(SESSION, name)
    settings: dict[str, Any] = {} if name == "prefill" else {"max_new_tokens": 1, "seed": 0}
    for allowed, length in ((False, len(END_TEXT)), (True, 1)):
        made = call(prompt, allow_special_tokens=allowed, **settings)
        state = made if name == "prefill" else (made[0] if name == "generate_batch" else made).state
        assert state.length == (length + (name == "generate_batch"),)
    with pytest.raises(InputError, match=r"prompt: has 13 .* 5 bytes.*max_prompt_bytes"):
        call(prompt, max_prompt_bytes=5, **settings)


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"unigram"}))
def test_of_every_family(family: str) -> None:
    tokenizer = Tokenizer(source(family))
    start = tokenizer.special["<s>"]
    assert tokenizer.encode("a<s>").tolist().count(start) == 1  # the template's
    assert tokenizer.encode("a<s>", reading=ALLOWED).tolist().count(start) == 2
    assert start not in tokenizer.encode("a<s>", special=False)
    assert tokenizer.decode(tokenizer.encode("a<s>", reading=ALLOWED)).strip() == "a"


def test_a_vocabulary_that_lists_a_special_token_among_its_words() -> None:
    """It cannot be read as plain text, so it is refused rather than let through."""
    tokenizer = Tokenizer(source("unigram"))
    with pytest.raises(InputError, match=r"reads '<s>' as a special token.*allow_special_tokens"):
        tokenizer.encode("ab <s>")
    assert tokenizer.special["<s>"] in tokenizer.encode("ab <s>", special=False, reading=ALLOWED)


def test_unknown_words_are_no_special_tokens_in_a_text() -> None:
    fields = json.loads(source("word level"))
    fields["added_tokens"].append(fields["added_tokens"][0] | {"id": 0, "content": "[UNK]"})
    tokenizer = Tokenizer(json.dumps(fields).encode())
    assert tokenizer.special["[UNK]"] == 0
    assert tokenizer.encode("unheard", special=False).tolist() == [0]


@pytest.mark.parametrize(
    ("text", "limit", "message"),
    [
        ("a" * 9, 8, "has 9 characters. Pass at most 8 bytes, or a larger `max_prompt_bytes`"),
        ("é" * 5, 8, "has 10 bytes"),
        ("a" * ((1 << 20) + 1), None, "Pass at most 1,048,576 bytes"),
    ],
)
def test_long_texts(text: str, limit: int | None, message: str) -> None:
    options: dict[str, Any] = {} if limit is None else {"max_prompt_bytes": limit}
    with pytest.raises(InputError, match=message):
        SESSION.encode(text, **options)
    assert SESSION.encode(text, max_prompt_bytes=len(text.encode())).size == len(text.encode())


@pytest.mark.parametrize("limit", [0, -1, 1.5, "1", None])
def test_limits_that_are_not_numbers_of_bytes(limit: Any) -> None:
    with pytest.raises(InputError, match="max_prompt_bytes"):
        SESSION.encode("a", max_prompt_bytes=limit)


def session_with(tokenizer: bytes) -> Any:
    members = dict(lm_artifact().members)
    manifest = lm_artifact().manifest
    fields = {name: getattr(manifest, name) for name in ("targets", "inputs", "outputs", "states")}
    artifact = Artifact.build(
        members | {"tokenizer.json": tokenizer},
        kind="lm",
        fingerprint="0" * 64,
        **fields,
    )
    return session_of(artifact)


def test_a_text_that_the_tokenizer_leaves_out() -> None:
    dropping = {"model": {"type": "BPE", "vocab": {"a": 0}, "merges": []}, "pre_tokenizer": None}
    session = session_with(source("byte level", **dropping, post_processor=None))
    assert session.encode("ab").tolist() == [0]
    with pytest.raises(InputError, match="prompt: has no tokens"):
        session.encode("b")


# --- stop texts ------------------------------------------------------------------------------


def ends_early(stop: Any, **options: Any) -> Any:
    generation = SESSION.generate(
        "Hi", seed=3, temperature=1e3, max_new_tokens=3000, stop=stop, **options
    )
    list(generation)
    return generation


def test_a_special_token_as_a_stop_text_stops_at_its_id() -> None:
    at_id = ends_early((), stop_tokens=[END])
    assert at_id.finish_reason == "stop_token"
    for stop in (END_TEXT, [END_TEXT, "never so"]):
        at_text = ends_early(stop, stop_tokens=())
        assert (at_text.ids, at_text.finish_reason) == (at_id.ids, "stop_token")


@pytest.mark.parametrize("stop", [f"\n{END_TEXT}", f"{END_TEXT}\n", f"a{END_TEXT}b"])
def test_a_stop_text_with_a_special_token_inside(stop: str) -> None:
    with pytest.raises(InputError, match=r"stop: .* cannot appear: .*Stop at '<\|endoftext\|>' al"):
        SESSION.generate("Hi", stop=stop)


def test_stop_texts_are_looked_for_in_the_generated_text_alone() -> None:
    """Also one that the prompt's end and the first token would make together."""
    free = SESSION.generate("Hi", seed=3, max_new_tokens=20, stop_tokens=())
    list(free)
    first = next(piece for piece in free.text)
    for stop in ("Hi", "i" + first):
        found = SESSION.generate("Hi", seed=3, max_new_tokens=20, stop_tokens=(), stop=stop)
        list(found)
        assert stop in free.text or found.ids == free.ids


def test_a_stop_text_over_several_tokens() -> None:
    free = SESSION.generate("Hi", seed=3, max_new_tokens=30, stop_tokens=())
    list(free)
    stop = free.text[5:9]
    found = SESSION.generate("Hi", seed=3, max_new_tokens=30, stop_tokens=(), stop=[stop, "never"])
    list(found)
    expected = free.text[: free.text.index(stop)], "stop_string"
    assert (found.text, found.finish_reason) == expected


# --- wrong arguments -------------------------------------------------------------------------


@pytest.mark.parametrize("sampling", [3, "x", {"top_k": 1}, [1], 0, ""])
def test_what_is_not_a_sampling(sampling: Any) -> None:
    with pytest.raises(InputError, match="sampling: is of type"):
        SESSION.generate([1], sampling)


@pytest.mark.parametrize(
    ("prompt", "message"),
    [
        (5, "prompt: has type int"),
        (None, "prompt: has type NoneType"),
        (b"Hi", "prompt: has type bytes"),
        ([1.0], "prompt: has dtype float64"),
        ([-1], r"id -1 at \(0,\)"),
        ([2**70], "prompt"),
        ([True], "prompt: has dtype bool"),
        ([], r"prompt: has shape \(0,\)"),
        (np.zeros((1, 1), np.int64), r"prompt: has shape \(1, 1\)"),
        ({1, 2}, "prompt: has type set"),
    ],
    ids=str,
)
def test_what_is_not_a_prompt(prompt: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        SESSION.generate(prompt)


def test_numbers_of_any_type_are_settings() -> None:
    numbers: dict[str, Any] = {"temperature": Fraction(1, 2), "top_k": np.int32(3)}
    seed: Any = np.uint64(2**64 - 1)
    made = Sampling(**numbers, top_p=0.5)
    assert made == Sampling(temperature=0.5, top_k=3, top_p=0.5)
    few = SESSION.generate([1], made, seed=seed, max_new_tokens=2, stop_tokens=())
    assert len(list(few)) == 2
    endless = SESSION.generate([1], max_new_tokens=10**40, top_k=10**40, stop_tokens=())
    assert next(endless).id < 257
