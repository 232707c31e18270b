"""Waits: as few as are needed, and with them every order of the units has the same bits."""

from __future__ import annotations

import random

import numpy as np
import pytest
from fpga_programs import changed, facts, machine, memories, program, run, without

from mmfree_compiler.backends.fpga.isa.encoding import encode_program
from mmfree_compiler.backends.fpga.isa.opcode import Counts
from mmfree_compiler.backends.fpga.isa.word import NO_WAIT, UNITS
from mmfree_compiler.backends.fpga.run.hazards import hazards
from mmfree_compiler.backends.fpga.run.schedules import run_in_order_of
from mmfree_compiler.backends.fpga.run.simulator import Simulator

COUNTS: Counts = (1, 3, 2, 3)
roles = pytest.mark.parametrize("role", ["forward", "advance", "decode"])


@roles
@pytest.mark.parametrize("counts", [(1, 1, 1, 1), COUNTS, (1, 5, 5, 0)])
def test_compiled_programs_have_no_hazards(role: str, counts: Counts) -> None:
    assert list(hazards(program(role), memories(), counts, steps=3)) == []


@roles
def test_each_wait_is_needed(role: str) -> None:
    """At the size of runs that the program is for: without it, there is a race."""
    whole, most = program(role), facts().tokens
    removed = 0
    for place, instruction in enumerate(whole):
        for u, distance in enumerate(instruction.waits):
            if distance != NO_WAIT:
                fewer = changed(whole, place, without(instruction, u))
                found = hazards(fewer, memories(), (1, most, most, most), steps=3)
                assert next(found, None) is not None, (place, instruction.opcode.name, UNITS[u])
                removed += 1
    assert removed > 20


@roles
def test_random_schedules_have_the_same_bits(role: str) -> None:
    """100 of each program, with queues of other lengths; the units run in other orders."""
    steps = 3 if role == "decode" else 1
    given = run(3, 3, steps) if role == "decode" else run(steps=steps)
    simulator = Simulator(machine())
    simulator.run(np.frombuffer(encode_program(program(role)), np.uint8), given)
    expected, orders = simulator.machine.memory.rest.copy(), set()
    for seed in range(100):
        other = machine()
        choose = random.Random(seed).choice
        ran = run_in_order_of(choose, other, program(role), given, queue=1 + seed % 16)
        orders.add(tuple(ran))
        assert np.array_equal(other.memory.rest, expected), seed
        assert np.array_equal(other.ids, simulator.machine.ids), seed
    assert len(orders) > 70


def test_a_missing_wait_gives_other_bits() -> None:
    """A schedule that runs ahead wherever it may shows what the check for races finds."""
    whole = program()
    place = next(k for k, i in enumerate(whole) if i.opcode.name == "add")
    broken = changed(whole, place, without(whole[place], UNITS.index("tmm")))
    expected, found = machine(), machine()
    run_in_order_of(min, expected, whole, run())
    run_in_order_of(max, found, broken, run())  # VEC and SEQ first
    assert not np.array_equal(found.memory.rest, expected.memory.rest)
