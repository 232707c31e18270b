"""Interleaved measuring: in every round each peer in turn, then the machine's own ceilings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from benchmarks.ceilings import Rates
from benchmarks.processes import WorkerError
from benchmarks.tasks import Task
from mmfree_compiler.cli.measure import Spread


class Answers(Protocol):
    """The part of processes.Worker that rounds need."""

    opened: dict[str, Any]

    def ask(self, task: str) -> dict[str, Any]: ...


@dataclass
class _Samples:
    """What a peer answered so far; of facts beside the seconds, the last ones."""

    seconds: list[float] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)

    def add(self, answer: Mapping[str, Any]) -> None:
        self.facts = dict(answer)
        self.seconds.append(self.facts.pop("seconds"))


def measure(
    task: Task,
    workers: Mapping[str, Answers],
    measure_ceilings: Callable[[], Rates],
    repeat: int,
) -> dict[str, Any]:
    """`repeat` rounds of a task: ceilings and figures as spreads, and why peers are missing.

    The result is a part of the benchmark's document, see report.Group.
    """
    samples = {name: _Samples() for name in workers}
    skipped: dict[str, str] = {}
    rates: list[Rates] = []
    for _ in range(repeat):
        rates.append(measure_ceilings())
        for name in list(samples):
            try:
                samples[name].add(workers[name].ask(task.name))
            except WorkerError as error:
                skipped[name] = str(error)
                del samples[name]
    return {
        "task": task.name,
        "ceilings": dict(_spreads(rates)),
        "figures": {name: _figure(workers[name], found) for name, found in samples.items()},
        "skipped": skipped,
    }


def _spreads(rates: Sequence[Rates]) -> Iterator[tuple[str, dict[str, float]]]:
    for name in rates[0]:
        yield name, asdict(Spread.of([rate[name] for rate in rates]))


def _figure(worker: Answers, samples: _Samples) -> dict[str, Any]:
    spread = {"seconds": asdict(Spread.of(samples.seconds)), "samples": samples.seconds}
    return spread | worker.opened | samples.facts
