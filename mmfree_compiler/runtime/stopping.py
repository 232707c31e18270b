"""Finding stop strings in text that arrives in pieces."""

from __future__ import annotations

from collections.abc import Sequence


class StopFilter:
    """Passes text on up to the first stop string, and holds back text that may become one.

    The first stop string is the one that ends first, or the longest of those that end together, so
    the result does not depend on how the text is cut into pieces.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._held = ""

    def push(self, piece: str) -> tuple[str, bool]:
        """The text that can be passed on, and whether a stop string ended it."""
        text = self._held + piece
        starts = [(stop, text.find(stop)) for stop in self._stops]
        found = [(start + len(stop), start) for stop, start in starts if start >= 0]
        if found:
            _, start = min(found)
            self._held = ""
            return text[:start], True
        kept = len(text) - max((_overlap(text, stop) for stop in self._stops), default=0)
        self._held = text[kept:]
        return text[:kept], False

    def flush(self) -> str:
        """The text that was held back."""
        held, self._held = self._held, ""
        return held


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of `text` with which `stop` begins."""
    longest = min(len(text), len(stop) - 1)
    return next((n for n in range(longest, 0, -1) if text.endswith(stop[:n])), 0)
