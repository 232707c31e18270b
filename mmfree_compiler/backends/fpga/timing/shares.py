"""What each instruction adds to the time of a run."""

from __future__ import annotations

from collections import Counter

from mmfree_compiler.backends.fpga.timing.model import Timeline


def added_cycles(timeline: Timeline, first: int) -> Counter[int]:
    """By place in the program: the cycles after `first` that its instruction adds to the run.

    Units work at once. An instruction adds the cycles from the end of all that are in front of it
    in the program to its own end; it adds none if another ends later. All together they are
    the cycles of the run.
    """
    added: Counter[int] = Counter()
    end = first
    for span in timeline.spans:
        added[span.place] += max(0, span.done - end)
        end = max(end, span.done)
    return added
