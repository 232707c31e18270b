"""Shortening text that repeats layer after layer: one repetition stays, the rest is counted."""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.wording import counted

Kinds = NDArray[np.int64]  # equal numbers for lines of one kind

FEWEST = 8  # lines that folding must save
# The numbers that make names differ from layer to layer: of modules and of calls.
_NUMBERS = re.compile(r"(?<=\w)[_.]\d+(?=[_.]|\b)")


def folded(text: str) -> str:
    """`text` with each run of equal blocks of lines as its first block and a count of the others.

    Lines are equal if they differ in the numbers of names only.
    """
    lines = text.split("\n")
    numbers: dict[str, int] = {}
    kinds = [numbers.setdefault(_NUMBERS.sub("", line), len(numbers)) for line in lines]
    return "\n".join(_folded(lines, np.array(kinds)))


def _folded(lines: list[str], kinds: Kinds) -> Iterator[str]:
    start, period, count = _longest_run(kinds)
    if period * (count - 1) < FEWEST:
        yield from lines
        return
    end = start + period * count
    yield from _folded(lines[:start], kinds[:start])
    yield from lines[start : start + period]
    indent = len(lines[start]) - len(lines[start].lstrip())
    more = counted(count - 1, "more time")
    yield f"{' ' * indent}... {counted(period, 'line')} like these, {more}"
    yield from _folded(lines[end:], kinds[end:])


def _longest_run(kinds: Kinds) -> tuple[int, int, int]:
    """Start, period and number of the repeated blocks that most lines are part of.

    Of runs of one length, the one with the shortest period.
    """
    best = (0, 0, 0)
    for period in range(1, len(kinds) // 2 + 1):
        equal = np.concatenate(([0], kinds[period:] == kinds[:-period], [0]))
        edges = np.flatnonzero(np.diff(equal))
        lengths = edges[1::2] - edges[::2]
        if not lengths.size:
            continue
        longest = int(lengths.argmax())
        count = int(lengths[longest]) // period + 1
        if count > 1 and period * count > best[1] * best[2]:
            best = (int(edges[2 * longest]), period, count)
    return best
