"""Tokens that are bytes: whole characters are put together from them before text is decoded.

A decoder of the `tokenizers` package that sees half a character replaces it, or a whole run of
bytes, by U+FFFD, which a text may also contain. So it is only given whole characters here.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Callable, Iterator
from functools import cache

# A string for the decoder, and the byte that it stands for, if it does.
Unit = tuple[str, int | None]
# Units that make one character, or one token that is text: they are decoded together.
Group = tuple[str, ...]
BROKEN: Group = ("\N{REPLACEMENT CHARACTER}",)  # what stands for bytes that are not UTF-8

_SPELLED = re.compile("<0x([0-9A-Fa-f]{2})>")


def _plain(token: str) -> list[Unit]:
    return [(token, None)]


def _spelled(token: str) -> list[Unit]:
    """SentencePiece's byte fallback: the token `<0xE6>` is the byte E6."""
    found = _SPELLED.fullmatch(token)
    return [(token, int(found[1], 16) if found else None)]


def _byte_level(token: str) -> list[Unit]:
    """GPT-2's alphabet: every character of a token is a byte, or the token is plain text."""
    table = _byte_alphabet()
    found = [(character, table.get(character)) for character in token]
    return [(token, None)] if any(byte is None for _, byte in found) else [*found]


@cache
def _byte_alphabet() -> dict[str, int]:
    """Character -> byte: printable Latin-1 is itself, the others are U+0100 and on, in order."""
    from tokenizers import pre_tokenizers

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    printable = [ord(character) for character in alphabet if ord(character) < 256]
    others = [byte for byte in range(256) if byte not in printable]
    return dict(zip(alphabet, printable + others, strict=True))


# Type of a decoder in tokenizer.json -> how its tokens are split into units.
SPLITS: dict[str, Callable[[str], list[Unit]]] = {
    "ByteLevel": _byte_level,
    "ByteFallback": _spelled,
    "": _plain,
}


class Characters:
    """Groups units as they arrive, and holds back the bytes of a character that is not complete.

    Bytes that are not UTF-8 become BROKEN, once for each maximal part of a character, as in
    Python's and Unicode's own replacement.
    """

    def __init__(self) -> None:
        self._held: list[tuple[str, int]] = []

    @property
    def incomplete(self) -> bool:
        """Whether bytes are held back."""
        return bool(self._held)

    def push(self, unit: Unit) -> Iterator[Group]:
        """The groups that `unit` completes."""
        string, byte = unit
        if byte is None:
            yield from self.flush()
            yield (string,)
            return
        data = bytes(value for _, value in self._held) + bytes([byte])
        character = _decoded(data)
        if character is None:
            # The byte may begin another character, unless it stands alone.
            yield from (*self.flush(), *self.push(unit)) if self._held else (BROKEN,)
            return
        self._held.append((string, byte))
        if character:
            yield tuple(held for held, _ in self._held)
            self._held = []

    def flush(self) -> Iterator[Group]:
        """What stands for the bytes that are held back, if there are any."""
        if self._held:
            self._held = []
            yield BROKEN


def _decoded(data: bytes) -> str | None:
    """The character that `data` is; "" if it is the beginning of one, None if it is neither."""
    # Python would wait for the third byte of a surrogate, which is not a character.
    if data[:1] == b"\xed" and data[1:2] >= b"\xa0":
        return None
    try:
        return codecs.utf_8_decode(data, "strict", False)[0]
    except UnicodeDecodeError:
        return None
