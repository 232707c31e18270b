"""MMFREE_DEBUG: how much the user asked to see; docs/cli.md says what each level shows."""

from __future__ import annotations

import os


def level() -> int:
    """The number that MMFREE_DEBUG holds; 0 where it is unset or not a number."""
    text = os.environ.get("MMFREE_DEBUG", "")
    return int(text) if text.isdecimal() else 0


def tracebacks() -> bool:
    """Whether errors show their traceback: MMFREE_DEBUG is set to anything but an empty text."""
    return bool(os.environ.get("MMFREE_DEBUG"))
