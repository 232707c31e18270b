"""Text to ids and back, token by token: the tokenizer in an artifact."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.errors import ArtifactError, InputError, ToolchainError

_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"  # incomplete UTF-8 decodes to one or more of these
_MAX_PENDING = 3  # the most bytes of an incomplete UTF-8 character
_CONTEXT = 8  # older ids that are decoded with new ones: enough for any incomplete character
_WINDOW = 32  # the most ids before older ones are dropped, which bounds the cost of a step


class Tokenizer:
    """A tokenizer of the `tokenizers` package, made from the bytes of a tokenizer.json.

    Raises ToolchainError when the package is not installed, ArtifactError when the bytes are not a
    tokenizer.
    """

    def __init__(self, text: bytes) -> None:
        if not self.available():
            hint = "pip install mmfree-compiler[cli], or pass token ids"
            raise ToolchainError("tokenizers", "the package is not installed", hint)
        import tokenizers

        try:
            self._tokenizer: Any = tokenizers.Tokenizer.from_str(text.decode())
        except Exception as error:  # the package raises nothing narrower
            cause = f"is not a tokenizer: {error}"
            raise ArtifactError("tokenizer.json", cause, "Compile the model again") from error

    @staticmethod
    def available() -> bool:
        """Whether the tokenizers package is installed."""
        return find_spec("tokenizers") is not None

    def encode(self, text: str, special: bool = True) -> NDArray[np.int64]:
        """Ids (T,) int64; `special` adds the tokenizer's special tokens, such as a BOS.

        Raises InputError on text that cannot be encoded as UTF-8 (lone surrogates).
        """
        try:
            text.encode()
        except UnicodeEncodeError as error:
            hint = "Remove the invalid characters"
            raise InputError("prompt", f"is not valid text: {error}", hint) from error
        return np.array(self._tokenizer.encode(text, add_special_tokens=special).ids, np.int64)

    def decode(self, ids: Iterable[int]) -> str:
        """The text of `ids`, without special tokens, and with incomplete UTF-8 as U+FFFD."""
        return str(self._tokenizer.decode(list(ids), skip_special_tokens=True))


# tokenizers.decoders.DecodeStream raises an error after byte tokens that are not UTF-8 (test_text).
class TextStream:
    """The text of ids that arrive one at a time; a character appears with its last byte.

    `context` are the ids before the first one: decoders treat the start of a text differently, and
    the first id may complete the last character of the context.
    """

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._ids = self._tail(list(context))
        # The part of the text of `_ids` that was returned before or belongs to the context.
        self._known = self._context_text()

    def push(self, token: int) -> str:
        """The text that `token` completes."""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        stuck = len(self._ids) > 2 * _WINDOW  # incomplete for too long: stop waiting
        fresh = self._take(text, len(text) if stuck else _complete(text), last=stuck)
        if len(self._ids) > _WINDOW and text.startswith(self._known):
            held = len(text) - len(self._known)
            self._ids = self._tail(self._ids)
            text = self._tokenizer.decode(self._ids)
            self._known = text[: max(0, len(text) - held)]
        return fresh

    def flush(self) -> str:
        """The text that was held back, with incomplete characters as U+FFFD."""
        text = self._tokenizer.decode(self._ids)
        return self._take(text, len(text), last=True)

    def _take(self, text: str, end: int, last: bool) -> str:
        """The new part of `text[:end]`. `last`: no later id will complete a character."""
        start = _common_length(self._known, text)
        if self._known[start:].strip(_REPLACEMENT):
            # If tokens are bytes, a whole run of bytes decodes to replacement characters while its
            # last character is incomplete. Characters that were known before reappear afterwards.
            after = len(text) - len(text[start:].lstrip(_REPLACEMENT))
            if after == len(text) and not last:
                return ""
            # The run was not UTF-8: return one replacement for it, unless the context had one.
            start = after if self._known.endswith(_REPLACEMENT) else after - 1
        if end < start:
            return ""
        self._known = text[:end]
        return text[start:end]

    def _context_text(self) -> str:
        """The text of the context; an incomplete end, which may hide a run, as one replacement."""
        text = self._tokenizer.decode(self._ids)
        cut = (self._tokenizer.decode(self._ids[:-count]) for count in range(1, 1 + _MAX_PENDING))
        complete = next((t for t in cut if not t.endswith(_REPLACEMENT)), text)
        hidden = text.endswith(_REPLACEMENT) and not text.startswith(complete)
        return complete + _REPLACEMENT if hidden else text

    def _tail(self, ids: list[int]) -> list[int]:
        """The last ids, starting with one that begins a character if possible."""
        tails = [ids[-count:] for count in range(_CONTEXT, _CONTEXT - 1 - _MAX_PENDING, -1)]
        # Without its incomplete end, a run of bytes shows where its characters begin.
        whole = (
            tail
            for cut in range(1 + _MAX_PENDING)
            for tail in tails
            if not self._tokenizer.decode(tail[: len(tail) - cut]).startswith(_REPLACEMENT)
        )
        return next(whole, ids[-_CONTEXT:])


def _common_length(one: str, other: str) -> int:
    """Length of the common prefix."""
    for length, (a, b) in enumerate(zip(one, other, strict=False)):
        if a != b:
            return length
    return min(len(one), len(other))


def _complete(text: str) -> int:
    """Length of the part of `text` that later ids cannot change."""
    pending = len(text) - len(text.rstrip(_REPLACEMENT))
    return len(text) - min(pending, _MAX_PENDING)
