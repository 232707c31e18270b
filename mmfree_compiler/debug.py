"""The environment variable MMFREE_DEBUG; docs/cli.md lists its levels."""

from __future__ import annotations

import os


def level() -> int:
    """The value of MMFREE_DEBUG; 0 if it is unset or not a number."""
    text = os.environ.get("MMFREE_DEBUG", "")
    return int(text) if text.isdecimal() else 0


def tracebacks() -> bool:
    """Whether to show tracebacks of errors: MMFREE_DEBUG has any value, a number or not."""
    return bool(os.environ.get("MMFREE_DEBUG"))
