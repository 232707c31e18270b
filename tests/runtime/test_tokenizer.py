"""A tokenizer.json that is switched to training, does not fit the model, or is malformed."""

from __future__ import annotations

import json
from typing import Any

import pytest
from sample_tokenizers import FAMILIES, source

from mmfree_compiler.errors import ArtifactError, InputError
from mmfree_compiler.runtime.prompts import Reading
from mmfree_compiler.runtime.tokenizer import Tokenizer
from mmfree_compiler.runtime.tokenizer_rules import check_tokenizer

TEXT = "ab a ab é"
TRUNCATION = {"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0}
PADDING = {
    "strategy": {"Fixed": 50},
    "direction": "Left",
    "pad_to_multiple_of": None,
    "pad_id": 1,
    "pad_type_id": 0,
    "pad_token": "<s>",
}


def fields(family: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(source(family))
    return found


def changed(family: str, part: str, **changes: Any) -> bytes:
    """A family's tokenizer.json with other values in one of its parts."""
    return source(family, **{part: fields(family)[part] | changes})


@pytest.mark.parametrize("family", FAMILIES)
def test_truncation_and_padding_are_switched_off(family: str) -> None:
    plain = Tokenizer(source(family))
    batched = Tokenizer(source(family, truncation=TRUNCATION, padding=PADDING))
    assert batched.encode(TEXT).tolist() == plain.encode(TEXT).tolist()
    assert plain.switched_off == ()
    assert batched.switched_off == ("truncation", "padding")
    allowed = batched.encode(TEXT, reading=Reading(allow_special_tokens=True))
    assert allowed.tolist() == plain.encode(TEXT).tolist()


def test_dropout_is_switched_off() -> None:
    """It splits a text at random, which is for training."""
    dropping = Tokenizer(changed("byte level", "model", dropout=0.5))
    plain = Tokenizer(source("byte level")).encode(TEXT * 5).tolist()
    assert all(dropping.encode(TEXT * 5).tolist() == plain for _ in range(10))
    assert dropping.switched_off == ("dropout",)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_tokenizer_fits_a_model_with_as_many_ids_or_more(family: str) -> None:
    tokenizer = Tokenizer(source(family))
    size = max(tokenizer.ids.values()) + 1
    for vocab_size in (size, size + 1, size + 1000):
        check_tokenizer(tokenizer, vocab_size)
    with pytest.raises(ArtifactError, match=rf"has the id {size - 1}.* has {size - 1:,} ids"):
        check_tokenizer(tokenizer, size - 1)


NO_UNKNOWN = {
    "word level": changed("word level", "model", unk_token="[NONE]"),
    "wordpiece": changed("wordpiece", "model", unk_token="[NONE]"),
    "suffixed": changed("suffixed", "model", unk_token="[NONE]"),
    "unigram": changed("unigram", "model", unk_id=None, byte_fallback=False),
}


@pytest.mark.parametrize("text", NO_UNKNOWN.values(), ids=NO_UNKNOWN)
def test_a_tokenizer_without_its_unknown_token(text: bytes) -> None:
    """It reads the texts whose words it has; the compiler refuses it, since it fails on others."""
    tokenizer = Tokenizer(text)
    with pytest.raises(InputError, match="prompt: cannot be encoded"):
        tokenizer.encode("𒀀 ॐ")
    with pytest.raises(ArtifactError, match="cannot encode"):
        check_tokenizer(tokenizer, 1000)


def template(ids: list[int]) -> dict[str, Any]:
    single = [{"SpecialToken": {"id": "x", "type_id": 0}}, {"Sequence": {"id": "A", "type_id": 0}}]
    special = {"x": {"id": "x", "ids": ids, "tokens": ["x"] * len(ids)}}
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": single,
        "special_tokens": special if ids else {},
    }


# What the library reads without complaint, or answers by a panic, and what fails only when used.
UNFIT: dict[str, dict[str, Any]] = {
    "a template's id beyond the vocabulary": {"post_processor": template([5000])},
    "a template's id of 32 bits": {"post_processor": template([2**32 - 1])},
    "a template of a token that is not there": {"post_processor": template([])},
    "a decoder that cuts more than a token": {
        "decoder": {"type": "Strip", "content": "a", "start": 1, "stop": 1}
    },
    "chunks of nothing": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
}


@pytest.mark.parametrize("changes", UNFIT.values(), ids=UNFIT)
def test_a_tokenizer_that_would_fail_later(changes: dict[str, Any]) -> None:
    with pytest.raises(ArtifactError, match=r"tokenizer\.json"):
        check_tokenizer(Tokenizer(source("word level", **changes)), 1000)


def test_a_decoder_that_fails_on_no_tokens() -> None:
    parts = [{"type": "Fuse"}, {"type": "Strip", "content": "a", "start": 0, "stop": 1}]
    level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True}
    for decoder in (level, {"type": "Sequence", "decoders": [level, *parts]}):
        tokenizer = Tokenizer(source("byte level", decoder=decoder))
        assert tokenizer.decode([]) == tokenizer.decode([10_000]) == ""


MALFORMED: dict[str, bytes] = {
    "merges of words that are not there": changed("byte level", "model", merges=["xx yy"]),
    "merges shorter than a prefix": changed(
        "suffixed", "model", merges=["a b"], continuing_subword_prefix="##"
    ),
    "a broken table of characters": source(
        "unigram", normalizer={"type": "Precompiled", "precompiled_charsmap": "AAAA"}
    ),
    "a broken pattern": source(
        "unigram", normalizer={"type": "Replace", "pattern": {"Regex": "("}, "content": "x"}
    ),
    "another version": source("unigram", version="7.0"),
    "an unknown model": source("unigram", model={"type": "Other"}),
    "no model": source("unigram", model=None),
    "a decoder that is a list": source("unigram", decoder=[1]),
    "a list": b"[]",
    "not JSON": b"{",
    "not UTF-8": b'{"version": "\xff"}',
    "too deep": b"[" * 100_000,
}


@pytest.mark.parametrize("text", MALFORMED.values(), ids=MALFORMED)
def test_malformed(text: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"tokenizer\.json: is not a tokenizer"):
        Tokenizer(text)
