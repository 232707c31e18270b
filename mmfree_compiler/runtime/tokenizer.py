"""Text to ids and back, token by token: the tokenizer that travels in an artifact."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.errors import ArtifactError, InputError, ToolchainError

_HALF = "\N{REPLACEMENT CHARACTER}"  # what incomplete UTF-8 decodes to
_MOST_HALVES = 3  # bytes that an incomplete UTF-8 character can have
_CONTEXT = 8  # ids that are decoded with new ones: they hold any character begun before
_WINDOW = 32  # ids after which the older ones are dropped, so that a step's cost is bounded


class Tokenizer:
    """A `tokenizers` tokenizer of tokenizer.json's bytes.

    Raises ToolchainError without the tokenizers package, ArtifactError when they are none.
    """

    def __init__(self, text: bytes) -> None:
        if not self.available():
            hint = "pip install mmfree-compiler[cli], or pass token ids"
            raise ToolchainError("tokenizers", "the package is not installed", hint)
        import tokenizers

        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_str(text.decode())
        except Exception as error:  # the package raises nothing narrower
            cause = f"no tokenizer: {error}"
            raise ArtifactError("tokenizer.json", cause, "Compile the model again") from error

    @staticmethod
    def available() -> bool:
        """Whether the tokenizers package is installed."""
        return find_spec("tokenizers") is not None

    def encode(self, text: str, special: bool = True) -> NDArray[np.int64]:
        """Ids (T,) int64; `special` adds what the tokenizer puts around a text, such as a BOS.

        Raises InputError on text that no UTF-8 can hold (lone surrogates).
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InputError("prompt", f"no valid text: {error}", "Remove it") from error
        return np.array(self._tokenizer.encode(text, add_special_tokens=special).ids, np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, special tokens left out, incomplete UTF-8 as U+FFFD."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


# tokenizers.decoders.DecodeStream raises an error after byte tokens that are not UTF-8 (test_text).
class TextStream:
    """Text of ids that come one at a time; characters appear when their last byte is there.

    `context` are ids before the first one: decoders treat the start of a text in their own way, and
    an id may complete their last character.
    """

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._ids = self._tail(list(context))
        self._known = self._begun()  # text that was given out, or is the context's

    def push(self, token: int) -> str:
        """The text that `token` completes."""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        stuck = len(self._ids) > 2 * _WINDOW
        fresh = self._take(text, len(text) if stuck else _complete(text), last=stuck)
        if len(self._ids) > _WINDOW and text.startswith(self._known):
            held = len(text) - len(self._known)
            self._ids = self._tail(self._ids)
            text = self._tokenizer.decode(self._ids)
            self._known = text[: max(0, len(text) - held)]
        return fresh

    def flush(self) -> str:
        """What was held back, incomplete characters as U+FFFD."""
        text = self._tokenizer.decode(self._ids)
        return self._take(text, len(text), last=True)

    def _take(self, text: str, end: int, last: bool) -> str:
        """What of `text[:end]` is new. `last`: what is unclear will not become clear."""
        start = _common(self._known, text)
        if self._known[start:].strip(_HALF):
            # Where a tokenizer spells characters in bytes, a whole run of them decodes to halves
            # as long as its last character is one: those that were known are not lost.
            after = len(text) - len(text[start:].lstrip(_HALF))
            if after == len(text) and not last:
                return ""
            # One half for what has become of the run, unless the context had it.
            start = after if self._known.endswith(_HALF) else after - 1
        if end < start:
            return ""
        self._known = text[:end]
        return text[start:end]

    def _begun(self) -> str:
        """The ids' text; of a run whose last character hides the others, these and a half."""
        text = self._tokenizer.decode(self._ids)
        cut = (self._tokenizer.decode(self._ids[:-count]) for count in range(1, 1 + _MOST_HALVES))
        complete = next((t for t in cut if not t.endswith(_HALF)), text)
        hidden = text.endswith(_HALF) and not text.startswith(complete)
        return complete + _HALF if hidden else text

    def _tail(self, ids: list[int]) -> list[int]:
        """The last ids, from one on that begins a character where there is one."""
        tails = [ids[-count:] for count in range(_CONTEXT, _CONTEXT - 1 - _MOST_HALVES, -1)]
        # Without its unfinished end, a run of bytes shows where its characters begin.
        whole = (
            tail
            for cut in range(1 + _MOST_HALVES)
            for tail in tails
            if not self._tokenizer.decode(tail[: len(tail) - cut]).startswith(_HALF)
        )
        return next(whole, ids[-_CONTEXT:])


def _common(one: str, other: str) -> int:
    """How many characters both begin with."""
    differing = (i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
    return next(differing, min(len(one), len(other)))


def _complete(text: str) -> int:
    """How much of `text` later ids cannot change."""
    halves = len(text) - len(text.rstrip(_HALF))
    return len(text) - min(halves, _MOST_HALVES)
