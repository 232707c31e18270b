"""Inserting waits: as few as keep all instructions that touch the same lines in order.

An instruction waits for other units by distance: until all but their last few instructions that
stand in front of it are done. So a wait in a loop means the same in every iteration, it can only be
for what is older, and waits can never stop a program for good.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from mmfree_compiler.backends.fpga.isa.opcode import Counts, Instruction
from mmfree_compiler.backends.fpga.isa.order import Issued, Order
from mmfree_compiler.backends.fpga.isa.sequence import issued, loops, shortened
from mmfree_compiler.backends.fpga.isa.word import NO_WAIT, UNITS


def insert_waits(program: Sequence[Instruction], tokens: int) -> list[Instruction]:
    """The program with waits, for runs of up to `tokens` tokens."""
    counts: Counts = (1, tokens, tokens, tokens)
    short, steps = shortened(program)
    waits = [list(instruction.waits) for instruction in program]
    order = Order()
    for place, _ in issued(short, loops(short), steps):
        if program[place].opcode.unit != "seq":
            _wait(order, order.issue(place, program[place], counts), waits[place])
    return [replace(i, waits=tuple(w)) for i, w in zip(program, waits, strict=True)]


def _wait(order: Order, one: Issued, waits: list[int]) -> None:
    """Shorten the `waits` of an instruction to what this one of its issues needs."""
    needed = [order.needed(one, u) for u in range(len(UNITS))]
    # What was issued last knows most: it may make other waits needless.
    for u in sorted(range(len(UNITS)), key=lambda u: -order.age(u, needed[u])):
        order.wait(one, u, waits[u])
        if needed[u] > one.known[u]:
            waits[u] = min(waits[u], one.before[u] - needed[u], NO_WAIT - 1)
            order.wait(one, u, waits[u])
