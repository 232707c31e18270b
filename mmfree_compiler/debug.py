"""MMFREE_DEBUG: how much the user asked to see; docs/cli.md says what each level shows."""

from __future__ import annotations

import os


def level() -> int:
    """The number that it holds; 0 where it is unset, or a text, which shows tracebacks alone."""
    text = os.environ.get("MMFREE_DEBUG", "")
    return int(text) if text.isdecimal() else 0
