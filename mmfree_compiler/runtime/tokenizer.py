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
            mend = "pip install mmfree-compiler[cli], or pass token ids"
            raise ToolchainError("tokenizers", "the package is not installed", mend)
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


class TextStream:
    """Text of ids that come one at a time; characters appear when their last byte is there.

    `context` are ids before the first one: decoders treat the start of a text in their own way.
    """

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._ids = list(context[-_CONTEXT:])
        # The context's own text, until it is known whether an id completes its last character: one
        # that stays as it is (a U+FFFD of the prompt, say) is not the ids' to give out.
        self._context = tokenizer.decode(self._ids)
        self._given = _complete(self._context)

    def push(self, token: int) -> str:
        """The text that `token` completes."""
        self._ids.append(token)
        text = self._tokenizer.decode(self._ids)
        fresh = self._take(text, _complete(text))
        if len(self._ids) > _WINDOW:
            held = len(text) - self._given
            self._ids = self._ids[-_CONTEXT:]
            self._given = max(0, len(self._tokenizer.decode(self._ids)) - held)
        return fresh

    def flush(self) -> str:
        """What was held back, incomplete characters as U+FFFD."""
        text = self._tokenizer.decode(self._ids)
        return self._take(text, len(text))

    def _take(self, text: str, end: int) -> str:
        """What of `text[:end]` was not given out yet."""
        if not text.startswith(self._context):  # an id has completed the context's last character
            self._context = ""
        if end <= len(self._context):
            return ""
        fresh = text[max(self._given, len(self._context)) : end]
        self._given, self._context = max(self._given, end), ""
        return fresh


def _complete(text: str) -> int:
    """How much of `text` later ids cannot change."""
    halves = len(text) - len(text.rstrip(_HALF))
    return len(text) - min(halves, _MOST_HALVES)
