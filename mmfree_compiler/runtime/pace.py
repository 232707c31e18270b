"""How many threads a call should have now: all, or fewer while other processes use the CPUs.

Threads of a step meet at barriers, so one that waits for its CPU holds up all. Which number is the
fastest depends on what else runs: with one of two CPUs taken it is one thread; with both taken it
may be two, which then sleep and wake together. So numbers are tried, and only while the machine is
busy: an idle one pays for two clock reads a call.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import cycle

Clock = Callable[[], float]  # seconds

WINDOW = 0.05  # seconds of calls that a number of threads is judged by: many time slices
# Windows from one trial to the next: twice as many after each in vain.
SHORTEST_WAIT = 4
LONGEST_WAIT = 16
BUSY = 0.9  # CPU time of the calling thread over a window: with less it waited for others
BETTER = 0.95  # cost of a trial over the present cost: with less it is kept

MOVES: tuple[Callable[[int], int], ...] = (
    lambda threads: threads - 1,
    lambda threads: 2 * threads,
    lambda threads: threads // 2,
    lambda threads: threads + 1,
)


class Pace:
    """The number of `threads` for calls of one kind, from 1 to `most`.

    Call `start` before each call and `stop` after it, one call at a time.
    """

    def __init__(
        self, most: int, wall: Clock = time.perf_counter, cpu: Clock = time.thread_time
    ) -> None:
        self.threads = most
        self._most = self._home = most  # home: the number outside trials
        self._home_cost = 0.0  # seconds a unit of work, in the last window
        self._wall, self._cpu = wall, cpu
        self._moves = cycle(MOVES)
        self._wait, self._patience = 0, SHORTEST_WAIT  # windows to the next trial; from then on
        self._open_window()

    def start(self) -> None:
        """A call begins."""
        self._began = self._wall()

    def stop(self, work: float = 1.0) -> None:
        """The call is over; it did so much `work`, in a unit that stays the same."""
        self._seconds += self._wall() - self._began
        self._work += work
        if self._seconds >= WINDOW and self._most > 1:
            self._judge(self._seconds / self._work)
            self._open_window()

    def _open_window(self) -> None:
        self._seconds = self._work = 0.0
        self._cpu_start = self._cpu()

    def _judge(self, cost: float) -> None:
        if self.threads != self._home:
            return self._end_trial(cost)
        self._home_cost = cost
        busy = self._cpu() - self._cpu_start < BUSY * self._seconds
        if not busy and self._home == self._most:
            self._patience = SHORTEST_WAIT  # whatever was in vain before
        self._wait -= 1
        if self._wait <= 0:
            self.threads = self._trial(1 if busy else self._home)
        return None

    def _trial(self, fewest: int) -> int:
        """The next number to try, at least `fewest`; the present one when there is none."""
        if fewest == self._most:
            return self._home
        tried = (min(max(move(self._home), fewest), self._most) for move in self._moves)
        return next(threads for threads in tried if threads != self._home)

    def _end_trial(self, cost: float) -> None:
        better = cost < BETTER * self._home_cost
        self._wait = self._patience = (
            SHORTEST_WAIT if better else min(2 * self._patience, LONGEST_WAIT)
        )
        self._home = self.threads if better else self._home
        self.threads = self._home
