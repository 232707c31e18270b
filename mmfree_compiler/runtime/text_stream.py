"""The text of tokens that arrive one at a time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from mmfree_compiler.runtime.byte_tokens import BROKEN, Characters, Group
from mmfree_compiler.runtime.tokenizer import Tokenizer

_WINDOW = 8  # older groups that are decoded with new ones: decoders treat a text's start otherwise
_LONGEST = 2 * _WINDOW  # when to forget the oldest: what is left is then decoded once more
_CONTEXT = 64  # ids before the first one that are looked at: enough to fill the window


class TextStream:
    """The text of ids that arrive one at a time; a character appears with its last byte.

    All pieces and the flush together are `tokenizer.decode` of all ids. `context` are the ids
    before the first one, which may complete its last character. A character that the context
    begins and that stays incomplete gives no text.
    """

    def __init__(self, tokenizer: Tokenizer, context: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._characters = Characters()
        self._window = self._groups(context[-_CONTEXT:])[-_WINDOW:]
        self._known: str | None = None  # the text of the window, if it is known
        self._owed = self._characters.incomplete  # the next group begins in the context

    def push(self, token: int) -> str:
        """The text that `token` completes. Raises ArtifactError as Tokenizer.join does."""
        return self._text(self._groups([token]))

    def flush(self) -> str:
        """The text that was held back: U+FFFD for an incomplete character."""
        return self._text([*self._characters.flush()])

    def _groups(self, ids: Iterable[int]) -> list[Group]:
        units = (unit for token in ids for unit in self._tokenizer.units(token))
        return [group for unit in units for group in self._characters.push(unit)]

    def _text(self, groups: list[Group]) -> str:
        """The text that `groups` add."""
        if groups and self._owed:
            self._owed = False
            if groups[0] == BROKEN:
                self._window.append(groups.pop(0))
        if not groups:
            return ""
        known = self._tokenizer.join(self._window) if self._known is None else self._known
        self._window += groups
        text = self._known = self._tokenizer.join(self._window)
        if len(self._window) > _LONGEST:
            self._window, self._known = self._window[-_WINDOW:], None
        return text[len(known) :]  # decoders only append: `known` is how `text` begins
