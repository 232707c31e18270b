"""Numbers and names in sentences: "1 thread", "at least 0", and no control characters."""

from __future__ import annotations

import math
from collections.abc import Sequence
from unicodedata import category

_ACTING = ("Cc", "Cf", "Cs", "Zl", "Zp")  # controls, formats, surrogates, separators of lines


def counted(number: int, noun: str) -> str:
    """ "1 thread", "2 threads": a number and a noun whose plural ends in s."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def few(names: Sequence[str], most: int = 3) -> str:
    """ "a, b, c and 9 more": the first of many names."""
    rest = len(names) - most
    return ", ".join(map(_shown, names[:most])) + (f" and {rest:,} more" if rest > 0 else "")


def _shown(name: str) -> str:
    """A name that somebody else wrote, on one line and not too long."""
    return name if name.isprintable() and len(name) <= 100 else ascii(name[:100])


def printable(text: str) -> str:
    """`text` as it may be sent to a terminal: escaped where a character would act on it.

    Files that somebody else made have names and notes in them. Lines stay lines.
    """
    if text.isprintable():
        return text
    return "".join(ascii(c)[1:-1] if _acts(c) else c for c in text)


def _acts(character: str) -> bool:
    """Whether it is a control, or changes the order of others. Joiners are part of words."""
    return category(character) in _ACTING and character not in "\n\t\u200c\u200d"


def bounds(low: float, high: float) -> str:
    """The condition on a number from `low` to `high`: "at least 0 and at most 1".

    The smallest positive float as `low` reads "more than 0"; an infinite `high` is left out.
    """
    least = "more than 0" if low == math.ulp(0.0) else f"at least {_plain(low)}"
    return least if math.isinf(high) else f"{least} and at most {_plain(high)}"


def significant(number: float) -> str:
    """A number to three digits: "0.0513", "12.0", "21,100"."""
    rounded = float(f"{number:.3g}")
    if not rounded:
        return "0"
    return f"{rounded:,.0f}" if abs(rounded) >= 100 else f"{rounded:#.3g}"


def given(value: object) -> str:
    """A number that somebody passed, with at most ten digits; anything else as repr() has it."""
    return f"{value:.10g}" if isinstance(value, float) else repr(value)


def described(error: BaseException) -> str:
    """An error of other code: "ValueError: not a batch", the beginning of a long one."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"{type(error).__name__}: {' '.join(lines[:3])}".rstrip(".: ")


def _plain(number: float) -> str:
    return f"{number:,.10g}"
