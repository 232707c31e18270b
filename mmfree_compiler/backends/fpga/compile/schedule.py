"""List scheduling: the order of drafts in which no unit is idle that could work.

Instructions are taken in the order in which they would start if a token ran alone on the board,
each unit one at a time; of those that a unit could start, the one with the longest way to the end.
What a TMM instruction takes from the stream is moved with it.
"""

from __future__ import annotations

from collections.abc import Sequence

from mmfree_compiler.backends.fpga.compile.draft import Draft, Part
from mmfree_compiler.backends.fpga.isa.opcode import Instruction
from mmfree_compiler.backends.fpga.spec import Spec
from mmfree_compiler.backends.fpga.timing.durations import Durations


def schedule(part: Part, spec: Spec) -> Part:
    """The part in another order, which computes the same."""
    drafts = part.drafts
    cycles = [_cycles(draft, spec) for draft in drafts]
    before = _dependences(drafts)
    rest = _ways(before, cycles)
    free: dict[str, int] = {}
    done: dict[int, int] = {}
    order: list[int] = []
    while len(order) < len(drafts):
        ready = [k for k in range(len(drafts)) if k not in done and before[k] <= done.keys()]
        starts = {
            k: max([free.get(drafts[k].opcode.unit, 0), *(done[j] for j in before[k])])
            for k in ready
        }
        first = min(ready, key=lambda k: (starts[k], -rest[k], k))
        done[first] = free[drafts[first].opcode.unit] = starts[first] + cycles[first]
        order.append(first)
    return Part(part.count, [drafts[k] for k in order])


def _cycles(draft: Draft, spec: Spec) -> int:
    durations = Durations(spec.board, spec.layout, (1, 1, 1, 1))
    duration = durations.of(Instruction(draft.opcode).with_fields(**draft.numbers))
    arriving = int(duration.streamed / durations.lines_per_cycle)
    return max(duration.busy, arriving) + duration.latency


def _dependences(drafts: Sequence[Draft]) -> list[set[int]]:
    """What each draft comes after: they touch one buffer or register, and not both only read."""
    before: list[set[int]] = []
    accesses = [draft.accesses() for draft in drafts]
    for k, ours in enumerate(accesses):
        before.append(
            {
                j
                for j, theirs in enumerate(accesses[:k])
                for name in ours.keys() & theirs.keys()
                if not ours[name] == theirs[name] == "read"
            }
        )
    return before


def _ways(before: Sequence[set[int]], cycles: Sequence[int]) -> list[int]:
    """The cycles from the start of each draft to the end of the longest way that begins there."""
    ways = list(cycles)
    for k in reversed(range(len(before))):
        for j in before[k]:
            ways[j] = max(ways[j], cycles[j] + ways[k])
    return ways
