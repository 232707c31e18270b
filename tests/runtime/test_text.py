"""Text that comes in pieces: incomplete characters and stop strings."""

from __future__ import annotations

from typing import Any

import pytest
from fake_launcher import byte_tokenizer
from hypothesis import example, given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer as Tokens
from tokenizers import decoders, models, pre_tokenizers

from mmfree_compiler.errors import ArtifactError, InputError, ToolchainError
from mmfree_compiler.runtime import tokenizer as module
from mmfree_compiler.runtime.stopping import StopFilter
from mmfree_compiler.runtime.text_stream import TextStream
from mmfree_compiler.runtime.tokenizer import Tokenizer

BYTES = Tokenizer(byte_tokenizer())


def stream(
    ids: list[int], tokenizer: Tokenizer = BYTES, context: tuple[int, ...] = ()
) -> list[str]:
    """The pieces that come of `ids`, the flush last."""
    text = TextStream(tokenizer, context)
    return [*(text.push(token) for token in ids), text.flush()]


@given(st.text())
def test_bytes_and_back(text: str) -> None:
    ids = BYTES.encode(text)
    assert bytes(ids.tolist()) == text.encode()
    assert BYTES.decode(ids.tolist()) == text


@settings(max_examples=200)
@example("", "\N{REPLACEMENT CHARACTER}")
@example("b", "a\N{REPLACEMENT CHARACTER}")
@given(st.text(max_size=60), st.text(max_size=10))
def test_characters_come_whole_with_their_last_byte(text: str, before: str) -> None:
    context = tuple(BYTES.encode(before).tolist())
    pieces = stream(BYTES.encode(text).tolist(), context=context)
    assert "".join(pieces) == text
    if "\N{REPLACEMENT CHARACTER}" not in text:  # one in the text itself waits for the next byte
        ends = {len(text[: i + 1].encode()) for i in range(len(text))}
        assert all(bool(piece) == (i + 1 in ends) for i, piece in enumerate(pieces[:-1]))


@settings(max_examples=200)
@given(st.binary(max_size=100))
def test_any_bytes_come_through(data: bytes) -> None:
    assert "".join(stream(list(data))) == BYTES.decode(list(data))


def test_held_bytes_are_flushed() -> None:
    assert stream([0x61, 0xE2, 0x82]) == ["a", "", "", "\N{REPLACEMENT CHARACTER}"]


def test_a_character_begun_in_the_context() -> None:
    assert stream([0xA9, 0x21], context=(0x61, 0xC3)) == ["é", "!", ""]


def test_what_the_context_leaves_unfinished_is_not_given_out() -> None:
    assert stream([0x62], context=(0x61, 0xC3)) == ["b", ""]
    assert stream([], context=(0xF0, 0x9F)) == [""]
    assert stream([0x98, 0x80, 0x21], context=(0xF0, 0x9F)) == ["", "😀", "!", ""]
    assert stream([0x9F, 0x8E], context=(0x95, 0xE2)) == ["", "⟎", ""]
    assert stream([0x9F, 0x8E, 0x89], context=(0xFF, 0xFF, 0xF0)) == ["", "", "🎉", ""]


def test_spaces_between_words_of_sentencepiece() -> None:
    """Its decoder drops a text's first space: without the context each word would lose its own."""
    tokens = Tokens(models.WordLevel({"▁Hello": 0, "▁big": 1, "▁world": 2}, unk_token="▁big"))
    tokens.pre_tokenizer = pre_tokenizers.Metaspace()
    tokens.decoder = decoders.Metaspace()
    tokenizer = Tokenizer(tokens.to_str().encode())
    assert stream([1, 2], tokenizer, context=(0,)) == [" big", " world", ""]
    assert stream([0, 1] * 40, tokenizer)[:3] == ["Hello", " big", " Hello"]
    assert "".join(stream([0, 1] * 40, tokenizer)) == " ".join(["Hello big"] * 40)


def spelled_in_bytes() -> Tokenizer:
    """As Llama's: characters outside the vocabulary, here all but "a" to "c", are byte tokens."""
    vocabulary = {"<unk>": 0, "a": 1, "b": 2, "c": 3} | {f"<0x{i:02X}>": 4 + i for i in range(256)}
    tokens = Tokens(models.BPE(vocabulary, [], unk_token="<unk>", byte_fallback=True))
    tokens.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    return Tokenizer(tokens.to_str().encode())


SPELLED = spelled_in_bytes()


@settings(max_examples=200)
@example("🎉🎈" * 20, "日本")
@example("étéa " * 20, "")
@given(st.text(max_size=60), st.text("aé日🎉", max_size=10))
def test_characters_that_are_spelled_in_bytes(text: str, before: str) -> None:
    context = tuple(SPELLED.encode(before).tolist())
    assert "".join(stream(SPELLED.encode(text).tolist(), SPELLED, context)) == text


@pytest.mark.parametrize("tokenizer", [BYTES, SPELLED], ids=["bytes", "spelled"])
@settings(max_examples=300)
@example("日本語", 4)
@example("a日本", 5)
@example("🎉🎈🎉🎈", 15)
@example("日本" * 30, 91)
@given(st.text("aéz日本🎉🎈", max_size=40), st.integers(0, 160))
def test_a_context_that_ends_inside_a_character(tokenizer: Tokenizer, text: str, cut: int) -> None:
    """Its complete characters are not given out again, the one that it begins comes whole."""
    ids = tokenizer.encode(text).tolist()
    ends = [tokenizer.encode(text[: i + 1]).size for i in range(len(text))]
    complete = sum(end <= cut for end in ends)
    pieces = stream(ids[cut:], tokenizer, tuple(ids[:cut]))
    assert "".join(pieces) == text[complete:]
    come = [bool(piece) for piece in pieces[:-1]]
    assert come == [end in ends for end in range(cut + 1, len(ids) + 1)]


def test_what_a_context_spelled_in_bytes_leaves_unfinished_is_not_given_out() -> None:
    context = (*SPELLED.encode("日").tolist(), 4 + 0xE6)
    assert stream([1, 2], SPELLED, context) == ["a", "b", ""]
    assert stream([], SPELLED, context) == [""]
    assert stream([4 + 0x9C], SPELLED, context) == ["", ""]
    assert stream([4 + 0x9C, 4 + 0xAC, 4 + 0xE6, 1], SPELLED, context)[1:] == ["本", "", "�a", ""]
    assert any(stream([4 + 0xFF] * 100, SPELLED, context)[:-1])  # not held back forever


@settings(max_examples=200)
@given(st.lists(st.integers(1, 259), max_size=150), st.lists(st.integers(1, 259), max_size=20))
def test_bytes_that_spell_nothing_do_not_stop_the_text(ids: list[int], before: list[int]) -> None:
    """What was given out of a run cannot be taken back, but what follows the run comes through."""
    pieces = stream([*ids, 1, 2, 3], SPELLED, tuple(before))
    assert "".join(pieces).endswith("abc")


def test_decode_stream_of_tokenizers_does_not_replace_text_stream() -> None:
    """A model may choose any byte tokens. A failure here says that DecodeStream can be used."""
    byte, other, letter = 4 + 0x00, 4 + 0x80, 1
    theirs = decoders.DecodeStream(skip_special_tokens=True)
    assert theirs.step(SPELLED._tokenizer, byte) == "\0"
    assert theirs.step(SPELLED._tokenizer, other) is None
    with pytest.raises(Exception, match="Invalid prefix"):
        theirs.step(SPELLED._tokenizer, letter)
    assert "".join(stream([byte, other, letter], SPELLED)) == "\0\N{REPLACEMENT CHARACTER}a"
    # Text of the context is given out again when the context ends inside a character.
    repeating = decoders.DecodeStream([0x61, 0xC3], skip_special_tokens=True)
    assert repeating.step(BYTES._tokenizer, 0xA9) == "aé"
    assert stream([0xA9], context=(0x61, 0xC3)) == ["é", ""]


def test_text_with_lone_surrogates() -> None:
    with pytest.raises(InputError, match="is not valid text"):
        BYTES.encode("\ud800")


@pytest.mark.parametrize("text", [b"", b"{}", b"\xff", b'{"model": {"type": "?"}}'])
def test_damaged_tokenizers(text: bytes) -> None:
    with pytest.raises(ArtifactError, match=r"tokenizer\.json"):
        Tokenizer(text)


def test_without_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    def find_nothing(_: str) -> None:
        return None

    monkeypatch.setattr(module, "find_spec", find_nothing)
    with pytest.raises(ToolchainError, match=r"mmfree-compiler\[text\]"):
        Tokenizer(byte_tokenizer())


# --- stop strings ----------------------------------------------------------------------------

LETTERS = st.text("ab\n", max_size=20)
STOPS = st.lists(st.text("ab\n", min_size=1, max_size=4), max_size=3)


def filtered(pieces: list[str], stops: list[str]) -> tuple[str, bool]:
    one, out = StopFilter(stops), ""
    for piece in pieces:
        text, hit = one.push(piece)
        out += text
        if hit:
            return out, True
    return out + one.flush(), False


def plain(text: str, stops: list[str]) -> tuple[str, bool]:
    """The definition: cut before the stop that is complete first, the longest of equals."""
    for end in range(1, len(text) + 1):
        found = [len(stop) for stop in stops if text[:end].endswith(stop)]
        if found:
            return text[: end - max(found)], True
    return text, False


@settings(max_examples=300)
@given(st.lists(LETTERS, max_size=6), STOPS)
def test_stops_do_not_depend_on_the_pieces(pieces: list[str], stops: list[str]) -> None:
    assert filtered(pieces, stops) == plain("".join(pieces), stops)


@given(LETTERS, STOPS)
def test_no_more_is_held_than_may_become_a_stop(text: str, stops: list[str]) -> None:
    given_out, hit = StopFilter(stops).push(text)
    held = text[len(given_out) :]
    if not hit:
        assert not held or any(stop.startswith(held) for stop in stops)


def test_a_stop_over_three_pieces() -> None:
    found: Any = StopFilter(["END"])
    assert [found.push(piece) for piece in ("aE", "N", "Db")] == [
        ("a", False),
        ("", False),
        ("", True),
    ]
