"""Checks of a program that need no numbers: races, and reads of what was never written."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from mmfree_compiler.backends.fpga.isa.opcode import Counts, Instruction
from mmfree_compiler.backends.fpga.isa.order import Issued, Order, conflict
from mmfree_compiler.backends.fpga.isa.sequence import issued, loops
from mmfree_compiler.backends.fpga.isa.word import UNITS


@dataclass(frozen=True)
class Hazard:
    """What is wrong at `place` of a program."""

    place: int
    what: str

    def __str__(self) -> str:
        return f"instruction {self.place}: {self.what}"


def hazards(
    program: Sequence[Instruction], sizes: Mapping[str, int], counts: Counts, steps: int = 1
) -> Iterator[Hazard]:
    """Of a run on `counts` rows; `sizes` are those of the memories in lines, without registers,
    which the host has written.

    Two instructions of different units race if they touch the same lines, one of them writes, and
    no waits keep them in order. Raises MachineError as the sequencer does.
    """
    order = Order()
    written = {memory: np.zeros(size, np.bool_) for memory, size in sizes.items()}
    for place, _ in issued(program, loops(program), steps):
        if program[place].opcode.unit == "seq":
            continue
        one = order.issue(place, program[place], counts)
        for u, distance in enumerate(program[place].waits):
            order.wait(one, u, distance)
        yield from _races(order, one, program)
        yield from _unwritten(one, written)


def _races(order: Order, one: Issued, program: Sequence[Instruction]) -> Iterator[Hazard]:
    for u, unit in enumerate(UNITS):
        for other in order.units[u][one.known[u] : one.before[u]]:
            if conflict(one.touches, other.touches):
                names = [program[place].opcode.name for place in (one.place, other.place)]
                what = f"{names[0]} does not wait for {names[1]} of {unit} at {other.place}"
                yield Hazard(one.place, what)


def _unwritten(one: Issued, written: Mapping[str, np.ndarray]) -> Iterator[Hazard]:
    touches = [touch for touch in one.touches if touch.memory in written]
    for touch in touches:
        lines = written[touch.memory][touch.first : touch.end]
        if touch.access != "write" and not lines.all():
            first = touch.first + int(np.argmin(lines))
            yield Hazard(one.place, f"reads line {first} of {touch.memory}, never written")
    for touch in touches:
        if touch.access != "read":
            written[touch.memory][touch.first : touch.end] = True
