"""Running a judge over many cases, and what is printed about them."""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

from fuzz.workers import FAULTS, Judge, Verdict, judged

SPAN = 1_000_000  # case numbers per seed


@dataclass
class Report:
    """The outcomes of all cases by feature, and the faults by case."""

    outcomes: Counter[tuple[str, str]] = field(default_factory=Counter)
    faults: dict[int, Verdict] = field(default_factory=dict)

    def add(self, case: int, verdict: Verdict) -> None:
        self.outcomes.update((name, verdict.outcome) for name in ("all", *verdict.features))
        if verdict.is_fault:
            self.faults[case] = verdict

    def count(self, outcome: str) -> int:
        """How many cases ended so."""
        return self.outcomes["all", outcome]

    def table(self) -> str:
        """One row per feature, one column per outcome."""
        columns = sorted(
            {o for _, o in self.outcomes} | set(FAULTS), key=lambda o: (o in FAULTS, o)
        )
        names = sorted({name for name, _ in self.outcomes}, key=lambda name: (name != "all", name))
        rows = [["", *columns]]
        rows += [[name, *(str(self.outcomes[name, o]) for o in columns)] for name in names]
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        return "\n".join(
            "  ".join([row[0].ljust(widths[0]), *map(str.rjust, row[1:], widths[1:])])
            for row in rows
        )


def run(
    judge: Judge,
    show: Callable[[int], str],
    count: int,
    seed: int = 0,
    workers: int = 1,
    limit_s: int = 60,
) -> Report:
    """Judges `count` cases of `seed`, and prints each fault with what repeats it, `show`.

    Ctrl-C ends it early.
    """
    report, first = Report(), seed * SPAN
    with suppress(KeyboardInterrupt):
        for case, verdict in judged(judge, range(first, first + count), workers, limit_s):
            report.add(case, verdict)
            if verdict.is_fault:
                made_of = ", ".join(verdict.features)
                print(f"--- case {case}: {verdict.outcome}: {verdict.detail}\n({made_of})")
                print(show(case), flush=True)
    return report


def main(judge: Judge, show: Callable[[int], str], count: int, limit_s: int) -> None:
    """The command line of a script; exits with 1 if there were faults."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--count", type=int, default=count)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--case", type=int, help="judge this case only, in this process")
    options = parser.parse_args()
    if options.case is not None:
        print(show(options.case), judge(options.case), sep="\n", flush=True)
        return
    report = run(judge, show, options.count, options.seed, options.workers, limit_s)
    print(report.table())
    raise SystemExit(bool(report.faults))
