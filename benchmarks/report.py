"""The benchmark's document as Markdown: `python -m benchmarks.report build/bench/cpu.json`.

The document's `groups` are what rounds.measure returns, one for each shape, number of threads and
task; its `shapes` hold what the peers answered when they prepared their files.
"""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks import memory
from benchmarks.ceilings import CEILINGS, limit_seconds
from benchmarks.peers import OURS, PEERS
from benchmarks.shapes import Shape
from benchmarks.tables import NOTHING, megabytes, number, replace_between, table
from benchmarks.tasks import TASKS, Task

Document = dict[str, Any]
BEGIN, END = "<!-- make bench: begin -->", "<!-- make bench: end -->"


def keep(document: Document, new: dict[str, Any]) -> None:
    """Put a group into the document; it replaces one of the same shape, threads and task."""

    def key(group: dict[str, Any]) -> tuple[int, int, int]:
        size = _shape(document, group["shape"]).parameters
        return size, group["threads"], list(TASKS).index(group["task"])

    others = [group for group in document["groups"] if key(group) != key(new)]
    document["groups"] = sorted([*others, new], key=key)


def _shape(document: Document, name: str) -> Shape:
    return Shape(**document["shapes"][name]["shape"])


@dataclass(frozen=True)
class Group:
    """A group of the document and the arithmetic on it."""

    shape: Shape
    threads: int
    task: Task
    rates: dict[str, float]
    seconds: dict[str, float]
    weight_bytes: dict[str, int]
    peak_rss_bytes: dict[str, int]

    @classmethod
    def of(cls, document: Document) -> list[Group]:
        """All groups of a document."""
        return [cls._of(document, group) for group in document["groups"]]

    @classmethod
    def _of(cls, document: Document, group: dict[str, Any]) -> Group:
        figures = group["figures"]
        return cls(
            _shape(document, group["shape"]),
            group["threads"],
            TASKS[group["task"]],
            {name: spread["median"] for name, spread in group["ceilings"].items()},
            {name: figure["seconds"]["median"] for name, figure in figures.items()},
            {name: figure["weight_bytes"] for name, figure in figures.items()},
            {name: figure["peak_rss_bytes"] for name, figure in figures.items()},
        )

    def tokens_per_second(self, peer: str) -> float:
        """Tokens of all sequences."""
        return self.task.size / self.seconds[peer]

    def times(self, peer: str) -> float:
        """How many times faster than `peer` ours is."""
        return self.seconds[peer] / self.seconds[OURS]

    def multiply_adds_per_second(self, peer: str) -> float:
        """Multiply-adds of the model, however the peer computes them."""
        return self.task.multiply_adds(self.shape) / self.seconds[peer]

    def limit_fraction(self, peer: str) -> float:
        """Its speed, relative to what the ceilings of the same rounds allow for its bytes."""
        work = self.task.multiply_adds(self.shape)
        return limit_seconds(self.rates, self.weight_bytes[peer], work) / self.seconds[peer]


def publish(document: Document, page: Path) -> None:
    """Replace the text between the markers of a Markdown page by the document's tables."""
    replace_between(page, BEGIN, END, markdown(document))


def markdown(document: Document) -> str:
    """All tables, each under a sentence that says what it shows."""
    groups = Group.of(document)
    running = [group for group in groups if group.task.kind != "load"]
    parts = (
        _machine(document),
        "Tokens per second, and how many times slower than mmfree. *of the limit*: see above.",
        _speeds(running),
        "The ceilings: medians over the rounds of all tasks.",
        _ceilings(groups),
        "Bytes of weights per second while decoding at batch 1.",
        _bandwidths(running),
        "Compiling and loading.",
        _compiling(document, groups),
        "Memory in MB: a decoding process; the same parameters in torch; torch's own process.",
        memory.measured(running),
        memory.CALCULATED,
        memory.calculated(running),
        *_reasons(document),
    )
    return "\n\n".join(part for part in parts if part)


def _machine(document: Document) -> str:
    machine, groups = document["machine"], document["groups"]
    days = sorted({group["time"][:10] for group in groups})
    versions: dict[str, str] = {}
    for group in groups:
        for found in group["versions"].values():
            versions |= found
    packages = ", ".join(f"{name} {version}" for name, version in sorted(versions.items()))
    cpus = machine["CPUs this process may use"]
    found = f"{machine['processor']}, {cpus} CPUs ({machine['CPU features']})"
    return f"{found}; {', '.join(days)}; {packages}."


def _names(groups: Iterable[Group]) -> list[str]:
    """Shapes, in the order of the groups."""
    return list(dict.fromkeys(group.shape.name for group in groups))


def _present(groups: Iterable[Group]) -> list[str]:
    """Peers with figures in some group, in the order of the table."""
    found = {peer for group in groups for peer in group.seconds}
    return [peer for peer in PEERS if peer in found]


def _speeds(groups: Sequence[Group]) -> str:
    others = [peer for peer in _present(groups) if peer != OURS]
    titles = [PEERS[peer].title for peer in others]
    header = ("model", "threads", "task", OURS, "of the limit", *titles)
    return table(header, ((*_place(g), *_speed_cells(g, others)) for g in groups))


def _place(group: Group) -> tuple[str, ...]:
    return group.shape.name, str(group.threads), group.task.label


def _speed_cells(group: Group, others: Sequence[str]) -> Iterator[str]:
    ours = OURS in group.seconds
    yield number(group.tokens_per_second(OURS)) if ours else NOTHING
    yield f"{group.limit_fraction(OURS):.0%}" if ours else NOTHING
    for peer in others:
        if peer not in group.seconds:
            yield NOTHING
        else:
            times = f" ({group.times(peer):.1f}x)" if ours else ""
            yield number(group.tokens_per_second(peer)) + times


def _ceilings(groups: Sequence[Group]) -> str:
    rows = []
    for threads in sorted({group.threads for group in groups}):
        rates = [group.rates for group in groups if group.threads == threads]
        for name in rates[0]:
            median = statistics.median(rate[name] for rate in rates)
            ceiling = CEILINGS[name]
            rows.append((str(threads), ceiling.title, f"{median / 1e9:,.1f} {ceiling.unit}"))
    return table(("threads", "ceiling", "rate"), rows)


def _bandwidths(groups: Sequence[Group]) -> str:
    decoding = [g for g in groups if g.task == TASKS["decode-1"]]
    peers = _present(decoding)
    header = ("model", "threads", *(PEERS[peer].title for peer in peers))
    rows = []
    for group in decoding:
        cells = (
            f"{group.weight_bytes[peer] / group.seconds[peer] / 1e9:.1f} GB/s"
            if peer in group.seconds
            else NOTHING
            for peer in peers
        )
        rows.append((group.shape.name, str(group.threads), *cells))
    return table(header, rows)


def _compiling(document: Document, groups: Sequence[Group]) -> str:
    rows = []
    for name in _names(groups):
        facts = document["shapes"][name]
        loads = [g for g in groups if (g.shape.name, g.task.kind) == (name, "load")]
        load = f"{1e3 * loads[0].seconds[OURS]:,.0f} ms" if loads else NOTHING
        if compiled := facts.get(OURS):
            peak, checkpoint = compiled["peak_rss_bytes"], compiled["checkpoint_bytes"]
            seconds = f"{sum(compiled['seconds'].values()):.1f} s"
            ratio = f"{peak / checkpoint:.2f}"
            rows.append((name, seconds, megabytes(peak), ratio, load))
    return table(("model", "compile", "peak MB", "over the checkpoint", "load"), rows)


def _reasons(document: Document) -> Iterator[str]:
    """Why peers are missing, each reason once."""
    found: dict[str, str] = {}
    for group in document["groups"]:
        for peer, reason in group["skipped"].items():
            found[f"{PEERS[peer].title}, {group['shape']}"] = reason
    if found:
        yield "\n".join(f"- Left out: {what}: {reason}" for what, reason in found.items())


if __name__ == "__main__":
    from benchmarks.cpu import PAGE

    publish(json.loads(Path(sys.argv[1]).read_text()), PAGE)
