"""Timing calls that a GPU runs one after another while the host goes on."""

from __future__ import annotations

import time
from collections.abc import Callable

LEAST_SECONDS = 0.3  # the least duration of a sample


def seconds_per_call(
    run: Callable[[int], object], clock: Callable[[], float] = time.perf_counter
) -> float:
    """The mean of as many calls as fill LEAST_SECONDS; `run(n)` makes n and waits for the last."""
    count = 1
    while True:
        started = clock()
        run(count)
        elapsed = clock() - started
        if elapsed >= LEAST_SECONDS:
            return elapsed / count
        count = max(2 * count, int(count * LEAST_SECONDS / elapsed) + 1)
