"""How many threads a call gets: fewer where that is faster, all when the machine is idle again."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmfree_compiler.backends.cpu.run.team_size import LONGEST_WAIT, WINDOW, TeamSize
from mmfree_compiler.runtime import load

CALL = WINDOW / 5  # seconds of a call on one thread of an idle machine


class Machine:
    """Clocks, and calls that take `seconds(threads)`; `share` of them on the caller's CPU."""

    def __init__(self, most: int) -> None:
        self.wall = self.cpu = 0.0
        self.team = TeamSize(most, lambda: self.wall, lambda: self.cpu)

    def run(
        self, seconds: Callable[[int], float], share: Callable[[int], float], windows: int
    ) -> list[int]:
        """The number of threads of each call, over about that many windows."""
        counts = []
        end = self.wall + windows * WINDOW
        while self.wall < end:
            threads = self.team.threads
            counts.append(threads)
            self.team.start()
            self.wall += seconds(threads)
            self.cpu += seconds(threads) * share(threads)
            self.team.stop()
        return counts


def idle(threads: int) -> float:
    return CALL / threads


def always(_: int) -> float:
    return 1.0


def waits(threads: int) -> float:
    return 1.0 if threads == 1 else 0.4


def one_cpu_taken(threads: int) -> float:
    return CALL if threads == 1 else 3 * CALL


@pytest.mark.parametrize("most", [1, 2, 3, 16])
def test_an_idle_machine_gives_all(most: int) -> None:
    assert set(Machine(most).run(idle, always, 200)) == {most}


def test_a_slow_machine_that_is_not_busy_gives_all() -> None:
    assert set(Machine(4).run(lambda _: CALL, always, 200)) == {4}


def test_fewer_threads_while_they_are_faster() -> None:
    machine = Machine(2)
    machine.run(one_cpu_taken, waits, 10)
    counts = machine.run(one_cpu_taken, waits, 20 * LONGEST_WAIT)
    assert counts.count(1) > 0.95 * len(counts)
    assert 2 in counts  # it tries from time to time


def test_all_threads_where_fewer_are_no_faster() -> None:
    counts = Machine(2).run(lambda threads: 2 * CALL / threads, lambda _: 0.5, 1000)
    assert counts.count(2) > 0.9 * len(counts)


def test_all_threads_again_on_an_idle_machine() -> None:
    machine = Machine(2)
    machine.run(one_cpu_taken, waits, 1000)
    machine.run(idle, always, 2 * LONGEST_WAIT)
    assert set(machine.run(idle, always, 200)) == {2}


def test_as_many_of_many_threads_as_have_a_cpu() -> None:
    machine = Machine(16)

    def eleven_free(threads: int) -> float:
        return CALL / threads * (1 if threads <= 11 else 4)

    def share(threads: int) -> float:
        return 1.0 if threads <= 11 else 0.3

    machine.run(eleven_free, share, 40 * LONGEST_WAIT)
    counts = machine.run(eleven_free, share, 20 * LONGEST_WAIT)
    assert counts.count(11) > 0.8 * len(counts)
    machine.run(idle, always, 40 * LONGEST_WAIT)
    assert set(machine.run(idle, always, 200)) == {16}


def test_work_is_what_counts() -> None:
    machine = Machine(2)
    for _ in range(100):  # one long call a window: twice the work when there are two threads
        machine.team.start()
        machine.wall += WINDOW
        machine.cpu += WINDOW / 2
        machine.team.stop(work=machine.team.threads)
    assert machine.team.threads == 2


def test_calls_are_judged_by_their_like(
    tiny_artifact: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A token costs less among many: decode, few and many tokens have a judge each."""
    judged: list[tuple[int, float]] = []
    monkeypatch.setattr(TeamSize, "stop", lambda self, work: judged.append((id(self), work)))
    model = load(tiny_artifact, 2).language_model
    state = model.fork(None, 1)
    for count in (1, 2, 3, 100, 128, 1):
        model.continue_one(np.zeros(count, np.int64), state, wanted=count)
    teams = [team for team, _ in judged]
    assert [work for _, work in judged] == [1, 2, 3, 100, 128, 1]
    assert teams[0] == teams[5]
    assert teams[1] == teams[2]
    assert len(set(teams)) == 4
