"""Judging many cases in child processes, so that a crash or a hang is the outcome of one case."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe, wait
from typing import NoReturn

MEMORY = 16 << 30  # bytes that a child may map: a hostile size then fails at once
PR_SET_PDEATHSIG = 1  # man 2 prctl: the signal that the end of the parent sends
FAULTS = ("signal", "hang", "foreign", "wrong", "unclear")


@dataclass(frozen=True)
class Verdict:
    """What became of a case: `outcome` is one of FAULTS, or a word of the judge's own ("refused").

    `detail` says more. `features` are what the case was made of, for the report.
    """

    outcome: str
    detail: str = ""
    features: tuple[str, ...] = ()

    @property
    def is_fault(self) -> bool:
        return self.outcome in FAULTS


Judge = Callable[[int], Verdict]  # of the case with that number


def judged(
    judge: Judge, cases: Sequence[int], workers: int, limit_s: int
) -> Iterator[tuple[int, Verdict]]:
    """Every case with its verdict, in no order, from `workers` processes at a time.

    A case that takes longer than `limit_s` seconds is a "hang"; one that ends its process in any
    other way is a "signal".
    """
    shares = (list(cases[n::workers]) for n in range(workers))
    running = {w.receiving: w for w in (_Worker(judge, share, limit_s) for share in shares)}
    while running:
        for connection in wait(list(running)):
            assert isinstance(connection, Connection)
            worker = running.pop(connection)
            verdict = worker.next()
            if verdict is not None:
                yield worker.cases.pop(0), verdict
            successor = worker.successor()
            if successor is not None:
                running[successor.receiving] = successor


class _Worker:
    """A child process, and the cases that it has not judged yet."""

    def __init__(self, judge: Judge, cases: list[int], limit_s: int) -> None:
        self.judge, self.cases, self.limit_s = judge, cases, limit_s
        self.dead = False
        self.receiving, sending = Pipe(duplex=False)
        self.pid = os.fork()
        if self.pid == 0:
            _serve(judge, cases, limit_s, sending)
        sending.close()

    def next(self) -> Verdict | None:
        """The verdict on the first case; None if the child has died and had no cases left."""
        with contextlib.suppress(EOFError):
            verdict: Verdict = self.receiving.recv()
            return verdict
        self.dead = True
        self.receiving.close()
        _, status = os.waitpid(self.pid, 0)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.pid, signal.SIGKILL)  # what the child has started
        if not self.cases:
            return None
        if os.WIFSIGNALED(status) and os.WTERMSIG(status) == signal.SIGALRM:
            return Verdict("hang", f"more than {self.limit_s} s")
        return Verdict("signal", f"status {status}")

    def successor(self) -> _Worker | None:
        """Who judges the rest of the cases: a new child if this one has died."""
        if not self.dead:
            return self
        return _Worker(self.judge, self.cases, self.limit_s) if self.cases else None


def _serve(judge: Judge, cases: list[int], limit_s: int, sending: Connection) -> NoReturn:
    """The child: a verdict for each case. An alarm, which nothing catches, ends one that hangs."""
    os.setsid()
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for case in cases:
        signal.alarm(limit_s)
        try:
            verdict = judge(case)
        except BaseException:  # a panic of Rust code is not an Exception
            verdict = Verdict("foreign", traceback.format_exc())
        signal.alarm(0)
        sending.send(verdict)
    os._exit(0)
