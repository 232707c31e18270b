"""What each unit does in every cycle of a run: work, or a wait and its cause."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from mmfree_compiler.backends.fpga.isa.word import UNITS
from mmfree_compiler.backends.fpga.timing.model import Span, Timeline
from mmfree_compiler.backends.projection import Interval

WORK, DRAIN, STREAM, END = "work", "pipeline", "stream", "end"


def intervals(timeline: Timeline, first: int, last: int) -> dict[str, tuple[Interval, ...]]:
    """Of each unit from cycle `first` to cycle `last`, which is cycle 0 on.

    "work": it takes operands. "pipeline": the last results are on their way. "stream": TMM waits
    for weights. "end": nothing is left to do. Any other word is what it waits for: a unit, "seq".
    """
    found = {}
    for unit in UNITS:
        spans = [span for span in timeline.spans if span.unit == unit]
        cut = _cut(_of_unit(spans, timeline.cycles), first, last)
        found[unit] = tuple(_merged(cut))
    return found


def _of_unit(spans: Sequence[Span], end: int) -> Iterator[Interval]:
    """Without gaps, from cycle 0 to `end`."""
    time, drained = 0, 0
    for span in spans:
        pipeline = min(drained, span.start)
        yield Interval(time, max(time, pipeline), DRAIN)
        yield Interval(max(time, pipeline), span.start, span.cause or DRAIN)
        yield Interval(span.start, span.start + span.starved, STREAM)
        yield Interval(span.start + span.starved, span.end, WORK)
        time, drained = span.end, span.done
    yield Interval(time, max(time, drained), DRAIN)
    yield Interval(max(time, drained), end, END)


def _cut(whole: Iterable[Interval], first: int, last: int) -> Iterator[Interval]:
    for interval in whole:
        start, end = max(interval.start, first), min(interval.end, last)
        if start < end:
            yield Interval(start - first, end - first, interval.what)


def _merged(parts: Iterable[Interval]) -> Iterator[Interval]:
    """Neighbours that do the same, as one."""
    last: Interval | None = None
    for part in parts:
        if last and last.what == part.what:
            last = Interval(last.start, part.end, part.what)
            continue
        if last:
            yield last
        last = part
    if last:
        yield last
