"""The cycle model: one pass over the instructions of a run, in the order of the program.

Instructions wait for older ones only, so each one's times follow from those of the ones before it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from mmfree_compiler.backends.fpga.board import Board
from mmfree_compiler.backends.fpga.isa.machine import MachineError
from mmfree_compiler.backends.fpga.isa.opcode import Counts, Instruction
from mmfree_compiler.backends.fpga.isa.sequence import issued, loops
from mmfree_compiler.backends.fpga.isa.word import NO_WAIT, UNITS
from mmfree_compiler.backends.fpga.layouts import Trits
from mmfree_compiler.backends.fpga.strides import LINE
from mmfree_compiler.backends.fpga.timing.durations import Duration, Durations
from mmfree_compiler.backends.fpga.timing.fifo import Fifo


@dataclass(frozen=True)
class Span:
    """An instruction's times in cycles: it was given to its unit when `issued`, started, took its
    last operand at `end`, and was `done` when its last result was written.

    `cause` is what it waited for last: a unit, "seq", or "" if its own unit was busy until then.
    `starved` are the cycles in which TMM waited for the stream.
    """

    place: int
    unit: str
    issued: int
    start: int
    end: int
    done: int
    cause: str
    starved: int = 0


@dataclass
class Timeline:
    """The spans of a run in the order of the program; lines that TMM took, and that DMA moved."""

    board: Board
    spans: list[Span]
    streamed: int
    moved: int

    @property
    def cycles(self) -> int:
        return max((span.done for span in self.spans), default=0)


@dataclass
class _Unit:
    """A unit's past: when each of its instructions started and was done, and when it is free."""

    starts: list[int] = field(default_factory=list)
    dones: list[int] = field(default_factory=list)
    free: int = 0


def simulate(
    program: Sequence[Instruction], board: Board, layout: Trits, counts: Counts, steps: int = 1
) -> Timeline:
    """When each instruction of a run on `counts` rows runs.

    Raises MachineError as the sequencer does, and when TMM takes more than is streamed.
    """
    durations = Durations(board, layout, counts)
    depth = (board.fifo_kib << 10) / LINE
    fifo = Fifo(durations.lines_per_cycle, depth, board.dram.latency_cycles)
    units, spans, clock, asked = {unit: _Unit() for unit in UNITS}, [], 0, 0
    moved = taken = 0
    for place, _ in issued(program, loops(program), steps):
        instruction = program[place]
        if instruction.opcode.unit == "seq":
            clock += 1
            if instruction.opcode.name == "stream":
                fifo.ask(clock, instruction.get("length"))
                asked += instruction.get("length")
            continue
        duration = durations.of(instruction)
        moved, taken = moved + duration.moved, taken + duration.streamed
        if taken > asked:
            raise MachineError("program", f"takes {taken} lines from streams of {asked}")
        own = units[instruction.opcode.unit]
        clock = _issue_time(own, clock, board.queue)
        spans.append(_run(place, instruction, duration, clock, units, fifo))
    return Timeline(board, spans, taken, moved)


def _issue_time(unit: _Unit, clock: int, queue: int) -> int:
    """When the sequencer can give a unit its next instruction: in a cycle, and if there is room."""
    full = len(unit.starts) >= queue
    return max(clock + 1, unit.starts[-queue]) if full else clock + 1


def _run(
    place: int,
    instruction: Instruction,
    duration: Duration,
    clock: int,
    units: dict[str, _Unit],
    fifo: Fifo,
) -> Span:
    name = instruction.opcode.unit
    own = units[name]
    ready = {"": own.free, "seq": clock + 1}
    for unit, distance in zip(UNITS, instruction.waits, strict=True):
        number = len(units[unit].dones) - distance
        if distance != NO_WAIT and number > 0:
            ready[unit] = units[unit].dones[number - 1]
    start = max(ready.values())
    cause = next(what for what, time in ready.items() if time == start)
    end = start + duration.busy
    if duration.streamed:
        end = math.ceil(fifo.take(start, duration.streamed, duration.busy))
    fifo.move(duration.moved)
    last = own.dones[-1] if own.dones else 0
    done = max(last, end + duration.latency)
    own.starts.append(start)
    own.dones.append(done)
    # The engines take the next weight while results of the last are on their way. In ROW and VEC an
    # instruction may read what the one before it wrote.
    own.free = end if name == "tmm" else done
    starved = end - start - duration.busy
    return Span(place, name, clock, start, end, done, cause, starved)
