"""Timing calls that a GPU runs one after another while the host goes on."""

from __future__ import annotations

import time
from collections.abc import Callable

LEAST_SECONDS = 0.3  # the least duration of a sample


class Sampler:
    """Measures a call: seconds, the mean of as many calls as fill LEAST_SECONDS.

    `run(n)` makes n calls and waits for the last.
    """

    def __init__(
        self, run: Callable[[int], object], clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._run, self._clock, self._count = run, clock, 1

    def __call__(self) -> float:
        while True:
            started = self._clock()
            self._run(self._count)
            elapsed = self._clock() - started
            if elapsed >= LEAST_SECONDS:
                return elapsed / self._count
            grown = int(self._count * LEAST_SECONDS / elapsed) + 1
            self._count = max(2 * self._count, grown)
