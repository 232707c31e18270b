"""Choosing the number of threads of a call: all, or fewer while other processes use the CPUs.

Threads of a step meet at barriers, so one that waits for its CPU holds up all of them. The fastest
number depends on the other processes: with one of two CPUs taken it is one thread; with both taken
it may be two, which then sleep and wake together. So different numbers are tried, but only while
the machine is busy: on an idle one each call costs just two more clock reads.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import cycle

Clock = Callable[[], float]  # seconds

WINDOW = 0.05  # seconds of calls to measure a number of threads: many time slices
# Windows from one trial to the next. They double after each trial that was not faster.
SHORTEST_WAIT = 4
LONGEST_WAIT = 16
BUSY = 0.9  # CPU time of the calling thread per wall time; below this it waited for others
BETTER = 0.95  # cost of a trial per usual cost; below this its number of threads is kept

MOVES: tuple[Callable[[int], int], ...] = (
    lambda threads: threads - 1,
    lambda threads: 2 * threads,
    lambda threads: threads // 2,
    lambda threads: threads + 1,
)


class TeamSize:
    """The number of `threads` for calls of one kind, from 1 to `most`.

    Call `start` before each call and `stop` after it, one call at a time.
    """

    def __init__(
        self, most: int, wall: Clock = time.perf_counter, cpu: Clock = time.thread_time
    ) -> None:
        self.threads = most
        self._most = self._usual = most  # usual: the number outside trials
        self._usual_cost = 0.0  # seconds per unit of work, in the last window
        self._wall, self._cpu = wall, cpu
        self._moves = cycle(MOVES)
        self._wait = 0  # windows until the next trial
        self._gap = SHORTEST_WAIT  # windows from that trial to the one after it
        self._open_window()

    def start(self) -> None:
        """A call begins."""
        self._began = self._wall()

    def stop(self, work: float = 1.0) -> None:
        """A call ends; `work` is the work it did, in the same unit for all calls."""
        self._seconds += self._wall() - self._began
        self._work += work
        if self._seconds >= WINDOW and self._most > 1:
            self._judge(self._seconds / self._work)
            self._open_window()

    def _open_window(self) -> None:
        self._seconds = self._work = 0.0
        self._cpu_start = self._cpu()

    def _judge(self, cost: float) -> None:
        if self.threads != self._usual:
            return self._end_trial(cost)
        self._usual_cost = cost
        busy = self._cpu() - self._cpu_start < BUSY * self._seconds
        if not busy and self._usual == self._most:
            self._gap = SHORTEST_WAIT  # earlier trials that failed no longer count
        self._wait -= 1
        if self._wait <= 0:
            self.threads = self._trial(1 if busy else self._usual)
        return None

    def _trial(self, fewest: int) -> int:
        """The next number to try, at least `fewest`; the usual one if there is no other."""
        if fewest == self._most:
            return self._usual
        tried = (min(max(move(self._usual), fewest), self._most) for move in self._moves)
        return next(threads for threads in tried if threads != self._usual)

    def _end_trial(self, cost: float) -> None:
        better = cost < BETTER * self._usual_cost
        self._wait = self._gap = SHORTEST_WAIT if better else min(2 * self._gap, LONGEST_WAIT)
        self._usual = self.threads if better else self._usual
        self.threads = self._usual
