"""The benchmark's document as the tables of docs/benchmarks-gpu.md."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from benchmarks.gpu.document import Document
from benchmarks.gpu.figures import Fit, Group, dram_rate
from benchmarks.gpu.peers import DRAM, OURS, PEERS
from benchmarks.tables import NOTHING, megabytes, number, replace_between, table

BEGIN, END = "<!-- make bench-gpu: begin -->", "<!-- make bench-gpu: end -->"

Cells = Callable[[Group], Iterator[str]]


def publish(document: Document, page: Path) -> None:
    """Replace the text between the markers of a Markdown page by the document's tables."""
    replace_between(page, BEGIN, END, markdown(document))


def markdown(document: Document) -> str:
    """All tables, each under a sentence that says what it shows."""
    groups = Group.of(document)
    rate = dram_rate(groups)
    parts = (
        _machine(document, groups),
        f"DRAM read rate, the median of all tasks: {rate / 1e9:,.0f} GB/s." if rate else "",
        *_titled("Microseconds per step of decoding.", _decoding(groups)),
        *_titled("Milliseconds per prompt.", _prefills(groups)),
        *_titled("Decoding as a + b x bytes of weights, over the shapes.", _fits(groups)),
        *_titled("Loading, and memory of the GPU in MB.", _memory(groups)),
        *_reasons(document),
    )
    return "\n\n".join(part for part in parts if part)


def _titled(sentence: str, made: str) -> tuple[str, ...]:
    return (sentence, made) if made else ()


def _machine(document: Document, groups: Sequence[Group]) -> str:
    figures = [figure for group in groups for figure in group.figures.values()]
    days = sorted({figure["time"][:10] for figure in figures})
    versions: dict[str, str] = {}
    for figure in figures:
        versions |= figure["versions"]
    machine = [f"{name}: {found}" for name, found in document["machine"].items()]
    packages = [f"{name} {version}" for name, version in sorted(versions.items())]
    return "; ".join([*machine, *packages, *days]) + "."


def _of_kind(groups: Sequence[Group], kind: str) -> list[Group]:
    return [group for group in groups if group.task.kind == kind]


def _decoding(groups: Sequence[Group]) -> str:
    def cells(group: Group) -> Iterator[str]:
        yield f"{1e6 * group.seconds(OURS):,.0f}"
        yield number(group.tokens_per_second(OURS))
        yield _of_limit(group)

    header = ("model", "sequences", OURS, "tokens/s", "of the DRAM limit")
    return _beside(header, _of_kind(groups, "decode"), cells, 1e6)


def _prefills(groups: Sequence[Group]) -> str:
    def cells(group: Group) -> Iterator[str]:
        yield number(1e3 * group.seconds(OURS))
        yield number(group.tokens_per_second(OURS))
        yield number(group.operations_per_second(OURS) / 1e12)

    header = ("model", "tokens", OURS, "tokens/s", "TOPS")
    return _beside(header, _of_kind(groups, "prefill"), cells, 1e3)


def _of_limit(group: Group) -> str:
    """How close the reading of weights comes to the rate of plain reading in the same rounds."""
    if DRAM not in group.figures:
        return NOTHING
    return f"{group.read_rate(OURS) / group.read_rate(DRAM):.0%}"


def _beside(header: Sequence[str], groups: Sequence[Group], cells: Cells, unit: float) -> str:
    """Ours, each peer with its ratio, and the options that measure the row."""
    found = {peer for group in groups for peer in group.figures}
    peers = [peer for peer in PEERS if peer in found - {OURS, DRAM}]
    columns = len(header) - 2
    rows = [
        (
            group.shape.name,
            f"{group.task.size:,}",
            *(cells(group) if OURS in group.figures else [NOTHING] * columns),
            *(_peer(group, peer, unit) for peer in peers),
            _options(group),
        )
        for group in groups
    ]
    return table((*header, *(PEERS[peer].title for peer in peers), "options"), rows)


def _peer(group: Group, peer: str, unit: float) -> str:
    """Its time, how many times ours that is, and a star where they were not measured together."""
    if peer not in group.figures:
        return NOTHING
    time = number(unit * group.seconds(peer))
    if OURS not in group.figures:
        return time
    return f"{time} ({group.times(peer):.1f}x{'' if group.together(peer) else '*'})"


def _options(group: Group) -> str:
    return f"`--shapes {group.shape.name} --tasks {group.task.name}`"


def _fits(groups: Sequence[Group]) -> str:
    """Of every peer that reads weights, and every number of sequences."""
    rows = []
    decoding = _of_kind(groups, "decode")
    for task in dict.fromkeys(group.task for group in decoding):
        for peer in (peer for peer in PEERS if peer != DRAM):
            own = [g for g in decoding if g.task == task and peer in g.figures]
            fit = Fit.of((g.figures[peer]["weight_bytes"], g.seconds(peer)) for g in own)
            if fit:
                start, rate = f"{1e6 * fit.start:,.0f} µs", f"{fit.rate / 1e9:,.0f} GB/s"
                rows.append((PEERS[peer].title, str(task.size), start, rate))
    return table(("", "sequences", "a", "1 / b"), rows)


def _memory(groups: Sequence[Group]) -> str:
    header = (
        *("model", "load", "decoding", "constants as stored", "states of a sequence"),
        *("the rest", "fp32", "fp32 / ours", "fp16", "fp16 / ours", "options"),
    )
    own = [group for group in _of_kind(groups, "load") if OURS in group.figures]
    return table(header, map(_memory_row, own))


def _memory_row(group: Group) -> tuple[str, ...]:
    figure, parameters = group.figures[OURS], group.shape.parameters
    sizes = [figure[name] for name in ("device_bytes", "constant_bytes", "state_bytes")]
    taken, *needed = sizes
    others = [4 * parameters, 2 * parameters]
    compared = [text for x in others for text in (megabytes(x), f"{x / taken:.1f}")]
    return (
        group.shape.name,
        f"{1e3 * group.seconds(OURS):,.0f} ms",
        *map(megabytes, (*sizes, taken - sum(needed))),
        *compared,
        _options(group),
    )


def _reasons(document: Document) -> Iterator[str]:
    """Why figures are missing."""
    lines = [
        f"- Without {PEERS[peer].title}: {group['shape']}, {group['task']}: {reason}"
        for group in document["groups"]
        for peer, reason in group["skipped"].items()
    ]
    if lines:
        yield "\n".join(lines)
