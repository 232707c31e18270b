"""Running a program in any order that its waits allow, as units of any speed would."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence

import numpy as np

from mmfree_compiler.backends.fpga.isa.machine import Machine, Run
from mmfree_compiler.backends.fpga.isa.opcode import Instruction
from mmfree_compiler.backends.fpga.isa.sequence import issued, loops
from mmfree_compiler.backends.fpga.isa.word import NO_WAIT, UNITS

Choose = Callable[[Sequence[int]], int]  # one of several numbers of units, SEQ's included
_SEQ = len(UNITS)


def run_in_order_of(
    choose: Choose, machine: Machine, program: Sequence[Instruction], run: Run, queue: int = 16
) -> list[int]:
    """Run a program on a machine; `choose` says which of the units that could go on does so.

    `queue` is how many instructions wait in front of each unit. Returns the places of all
    instructions in the order in which they ran.
    """
    machine.start(run)
    left = deque(issued(program, loops(program), run.steps))
    queues: list[deque[tuple[int, int, list[int]]]] = [deque() for _ in UNITS]
    given, done, ran = [0] * len(UNITS), [0] * len(UNITS), []

    def starts(u: int) -> bool:
        """Whether a unit has an instruction whose waits are over."""
        return bool(queues[u]) and all(n >= k for n, k in zip(done, queues[u][0][2], strict=True))

    def can_issue() -> bool:
        unit = program[left[0][0]].opcode.unit if left else ""
        return bool(left) and (unit == "seq" or len(queues[UNITS.index(unit)]) < queue)

    while left or any(queues):
        ready = [u for u in range(len(UNITS)) if starts(u)] + [_SEQ] * can_issue()
        u = choose(ready)
        if u == _SEQ:
            place, iteration = left.popleft()
            instruction = program[place]
            if instruction.opcode.unit == "seq":
                instruction.opcode.run(machine, instruction, iteration)
                continue
            own = UNITS.index(instruction.opcode.unit)
            until = [
                0 if distance == NO_WAIT else before - distance
                for before, distance in zip(given, instruction.waits, strict=True)
            ]
            queues[own].append((place, iteration, until))
            given[own] += 1
        else:
            place, iteration, _ = queues[u].popleft()
            with np.errstate(all="ignore"):
                program[place].opcode.run(machine, program[place], iteration)
            done[u] += 1
            ran.append(place)
    return ran
