"""Interleaved measuring: in every round each peer in turn, then the machine's own ceilings."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

from benchmarks.ceilings import Rates
from benchmarks.peers import PEERS
from benchmarks.processes import WorkerError
from benchmarks.tasks import Task
from mmfree_compiler.cli.measure import Spread


class Answers(Protocol):
    """The part of processes.Worker that rounds need."""

    opened: dict[str, Any]

    def ask(self, task: str) -> dict[str, Any]: ...


@dataclass
class _Samples:
    """What a peer answered so far."""

    seconds: list[float] = field(default_factory=list)
    peak_rss_bytes: int = 0

    def add(self, answer: Mapping[str, Any]) -> None:
        self.seconds.append(answer["seconds"])
        self.peak_rss_bytes = answer["peak_rss_bytes"]


def measure(
    task: Task,
    workers: Mapping[str, Answers],
    measure_ceilings: Callable[[], Rates],
    repeat: int,
) -> dict[str, Any]:
    """`repeat` rounds of a task: ceilings and figures as spreads, and why peers are missing.

    The result is a part of the benchmark's document, see report.Group.
    """
    able = {name: w for name, w in workers.items() if task.kind in PEERS[name].kinds}
    samples = {name: _Samples() for name in able}
    skipped: dict[str, str] = {}
    rates: list[Rates] = []
    for _ in range(repeat):
        rates.append(measure_ceilings())
        for name in list(samples):
            try:
                samples[name].add(able[name].ask(task.name))
            except WorkerError as error:
                skipped[name] = str(error)
                del samples[name]
    return {
        "task": task.name,
        "ceilings": dict(_spreads(rates)),
        "figures": {name: _figure(able[name], found) for name, found in samples.items()},
        "skipped": skipped,
    }


def _spreads(rates: Sequence[Rates]) -> Iterator[tuple[str, dict[str, float]]]:
    for name in rates[0]:
        yield name, asdict(Spread.of([rate[name] for rate in rates]))


def _figure(worker: Answers, samples: _Samples) -> dict[str, Any]:
    return {
        "seconds": asdict(Spread.of(samples.seconds)),
        "samples": samples.seconds,
        "weight_bytes": worker.opened["weight_bytes"],
        "peak_rss_bytes": samples.peak_rss_bytes,
    }
