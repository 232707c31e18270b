"""The judges notice what they are there for."""

from __future__ import annotations

import os
import signal
import time

import pytest

from fuzz.report import run
from fuzz.workers import Verdict, judged


def judge(case: int) -> Verdict:
    """Every third case is equal, crashes, hangs, leaves or raises."""
    faults = {1: lambda: os.kill(os.getpid(), signal.SIGKILL), 4: lambda: time.sleep(60)}
    faults |= {7: lambda: os._exit(0), 10: lambda: [][case]}
    faults.get(case, lambda: None)()
    return Verdict("equal", features=("made",))


@pytest.mark.parametrize("workers", [1, 3])
def test_a_crash_or_a_hang_is_the_outcome_of_one_case(workers: int) -> None:
    found = dict(judged(judge, range(12), workers, limit_s=1))
    faults = {case: v.outcome for case, v in found.items() if v.is_fault}
    assert len(found) == 12
    assert faults == {1: "signal", 4: "hang", 7: "signal", 10: "foreign"}


def test_a_report_counts_outcomes_and_shows_faults(capsys: pytest.CaptureFixture[str]) -> None:
    report = run(judge, "source of {}".format, 3, workers=2, limit_s=20)
    assert (report.count("equal"), list(report.faults)) == (2, [1])
    assert "source of 1" in capsys.readouterr().out
    assert ["all", "2", "0", "0", "1", "0", "0"] in [
        row.split() for row in report.table().splitlines()
    ]
