"""What the sequencer makes of a program: its instructions in order, with loops run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

from mmfree_compiler.backends.fpga.isa.machine import MachineError
from mmfree_compiler.backends.fpga.isa.opcode import Instruction

MAX_DEPTH = 2  # of loops in loops
ENOUGH = 3  # iterations that show how instructions of one and the next depend on each other
MAX_ISSUED = 1 << 20  # instructions of one run: those of a token are some hundreds


def loops(program: Sequence[Instruction]) -> dict[int, int]:
    """Where the loop ends that begins at each place: loop -> next.

    Raises MachineError unless loops are nested as they should be, and the program ends.
    """
    open_, ends = [], {}
    for at, instruction in enumerate(program):
        name = instruction.opcode.name
        if name == "loop":
            open_.append(at)
            if len(open_) > MAX_DEPTH:
                raise MachineError("program", f"has more than {MAX_DEPTH} loops in each other")
        elif name == "next":
            if not open_:
                raise MachineError("program", f"ends a loop at {at} that never began")
            ends[open_.pop()] = at
        elif name == "end" and (open_ or at + 1 < len(program)):
            raise MachineError("program", f"ends at {at} of {len(program)}, or within a loop")
    if not program or program[-1].opcode.name != "end":
        raise MachineError("program", "has no end")
    return ends


def issued(
    program: Sequence[Instruction], ends: Mapping[int, int], steps: int
) -> Iterator[tuple[int, int]]:
    """(place, iteration of the innermost loop) of all instructions of a run but `loop` and `end`.

    Raises MachineError when there are too many.
    """
    for count, place in enumerate(_run(program, ends, steps, 0, len(program), 0)):
        if count == MAX_ISSUED:
            raise MachineError("program", f"runs more than {MAX_ISSUED:,} instructions")
        yield place


def shortened(program: Sequence[Instruction]) -> tuple[list[Instruction], int]:
    """The program with loops of at most ENOUGH iterations, and as many steps.

    What is so in all of them is so in later iterations, too: distances of waits do not change.
    """
    short = [replace(i, m=min(i.m, ENOUGH)) if i.opcode.name == "loop" else i for i in program]
    return short, ENOUGH


def _run(
    program: Sequence[Instruction],
    ends: Mapping[int, int],
    steps: int,
    at: int,
    stop: int,
    iteration: int,
) -> Iterator[tuple[int, int]]:
    while at < stop:
        if at in ends:
            for inner in range(program[at].m or steps):
                yield from _run(program, ends, steps, at + 1, ends[at], inner)
                yield ends[at], inner
            at = ends[at]
        elif program[at].opcode.name != "end":
            yield at, iteration
        at += 1
