"""Streams of random ids, for tokenizers of every family: the pieces make the whole text."""

from __future__ import annotations

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sample_tokenizers import FAMILIES, LETTERS, REPLACEMENT, source
from tokenizers import Tokenizer as Tokens

from mmfree_compiler.runtime.text_stream import TextStream
from mmfree_compiler.runtime.tokenizer import Tokenizer

TOKENIZERS = {family: Tokenizer(source(family)) for family in FAMILIES}
THEIRS = {family: Tokens.from_str(source(family).decode()) for family in FAMILIES}
every_family = pytest.mark.parametrize("family", FAMILIES)
TEXT = st.lists(st.sampled_from([*LETTERS, "<note>", " <note> "]), max_size=40).map("".join)
IDS = st.lists(st.integers(0, 280), max_size=60)  # some beyond each vocabulary


def streamed(family: str, ids: list[int], context: tuple[int, ...] = ()) -> str:
    stream = TextStream(TOKENIZERS[family], context)
    return "".join([*map(stream.push, ids), stream.flush()])


@every_family
@settings(max_examples=100)
@given(IDS)
@example([259 + 5, 3 + 0xC3, 3 + 0xA9])  # a literal U+FFFD, then a character spelled in bytes
@example([3 + 0xC3, 259 + 5, 3 + 0xA9, 3 + 0xEF, 3 + 0xBF, 3 + 0xBD])
@example([3 + 0xC3, 1, 3 + 0xA9])  # a special token inside a character
@example([3 + 0xE2, 3 + 0x96, 3 + 0x81, 260])  # SentencePiece's space, spelled in bytes
def test_the_pieces_of_any_ids_are_their_text(family: str, ids: list[int]) -> None:
    assert streamed(family, ids) == TOKENIZERS[family].decode(ids)


@every_family
@settings(max_examples=100)
@given(TEXT, st.booleans())
def test_the_pieces_of_a_text_are_what_the_library_decodes(
    family: str, text: str, special: bool
) -> None:
    ids = TOKENIZERS[family].encode(text, special).tolist()
    assert streamed(family, ids) == THEIRS[family].decode(ids)
    assert ids == THEIRS[family].encode(text, add_special_tokens=special).ids


@pytest.mark.parametrize("family", sorted(FAMILIES.keys() - {"llama", "unigram"}))
@settings(max_examples=100)
@given(IDS)
@example([169, 94])  # in "byte level" ED A1, which begins a surrogate: not a character
def test_decoding_is_the_library_s(family: str, ids: list[int]) -> None:
    assert TOKENIZERS[family].decode(ids) == THEIRS[family].decode(ids)


@pytest.mark.parametrize("family", ["llama", "unigram"])
def test_of_a_run_of_bytes_only_what_is_not_utf8_is_replaced(family: str) -> None:
    """The library replaces every byte of such a run, which a stream cannot take back."""
    ids = [TOKENIZERS[family].ids[f"<0x{byte:02X}>"] for byte in (0xC3, 0xA9, 0xFF, 0xC3)]
    assert TOKENIZERS[family].decode(ids) == f"é{REPLACEMENT}{REPLACEMENT}"
    assert THEIRS[family].decode(ids) == REPLACEMENT * 4


@every_family
@settings(max_examples=100)
@given(TEXT, st.integers(0, 80))
def test_a_context_and_the_pieces_are_the_text(family: str, text: str, cut: int) -> None:
    """Also when the context ends inside a character, which then comes whole."""
    ids = TOKENIZERS[family].encode(text, special=False).tolist()
    known, whole = (TOKENIZERS[family].decode(some) for some in (ids[:cut], ids))
    pieces = streamed(family, ids[cut:], tuple(ids[:cut]))
    assert whole.endswith(pieces)
    if REPLACEMENT not in text:
        assert known.rstrip(REPLACEMENT) + pieces == whole


@every_family
def test_ids_that_no_vocabulary_has(family: str) -> None:
    assert TOKENIZERS[family].decode([-1, 1000, 1 << 32, 1 << 70]) == ""
    assert streamed(family, [-1, 1000, 1 << 32, 1 << 70]) == ""


def test_a_replacement_character_comes_at_once() -> None:
    """It is a token of its own, so nothing needs to be waited for."""
    stream = TextStream(TOKENIZERS["llama"])
    pieces = [stream.push(token) for token in (264, 264, 3 + 0xC3, 3 + 0xA9)]
    assert pieces == [REPLACEMENT, REPLACEMENT, "", "é"]


def test_a_context_that_ends_inside_a_replacement_character() -> None:
    stream = TextStream(TOKENIZERS["llama"], (260, 3 + 0xEF, 3 + 0xBF))
    assert [stream.push(3 + 0xBD), stream.push(260)] == [REPLACEMENT, "a"]
