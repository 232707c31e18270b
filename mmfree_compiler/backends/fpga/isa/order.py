"""What waits guarantee: which instructions are done when another one starts.

The compiler inserts waits by it, and checks look for races by it. A unit runs its instructions in
order and one at a time, so what is known is a number for each unit: a vector clock.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from mmfree_compiler.backends.fpga.isa.opcode import Counts, Instruction, Touch
from mmfree_compiler.backends.fpga.isa.word import NO_WAIT, UNITS


@dataclass(frozen=True)
class Issued:
    """An instruction at `place` of its program that was given to a unit.

    `before[u]` are the instructions of unit u in front of it. The first `known[u]` of them are done
    when it starts; of its own unit, all.
    """

    place: int
    touches: tuple[Touch, ...]
    before: tuple[int, ...]
    known: list[int]


@dataclass
class Order:
    """The instructions of each unit, issued one after the other."""

    units: list[list[Issued]] = field(default_factory=lambda: [[] for _ in UNITS])

    def issue(self, place: int, instruction: Instruction, counts: Counts) -> Issued:
        """The next instruction, which knows what its unit does; `wait` adds to that."""
        own = UNITS.index(instruction.opcode.unit)
        known = list(self.units[own][-1].known) if self.units[own] else [0] * len(UNITS)
        before = tuple(map(len, self.units))
        known[own] = before[own]
        touches = tuple(instruction.touches(counts))
        self.units[own].append(Issued(place, touches, before, known))
        return self.units[own][-1]

    def wait(self, issued: Issued, u: int, distance: int) -> None:
        """It waits for unit u, and so knows what the last instruction that is done there knew."""
        done = issued.before[u] - distance
        if distance == NO_WAIT or done <= issued.known[u]:
            return
        issued.known[u] = done
        for v, more in enumerate(self.units[u][done - 1].known):
            issued.known[v] = max(issued.known[v], more)

    def needed(self, issued: Issued, u: int) -> int:
        """How many instructions of unit u have to be done: at least those that are known to be."""
        for number in range(issued.before[u], issued.known[u], -1):
            if conflict(issued.touches, self.units[u][number - 1].touches):
                return number
        return issued.known[u]

    def age(self, u: int, number: int) -> int:
        """How late the last of the first `number` instructions of unit u was issued."""
        return sum(self.units[u][number - 1].before) if number else -1


def conflict(ours: Sequence[Touch], theirs: Sequence[Touch]) -> bool:
    """Whether the order of two instructions matters."""
    return any(a.conflicts(b) for a in ours for b in theirs)
