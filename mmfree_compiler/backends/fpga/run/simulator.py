"""The functional simulator: a machine in NumPy that runs instructions in their order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from mmfree_compiler.backends.fpga.isa.encoding import decode_program
from mmfree_compiler.backends.fpga.isa.machine import (
    Bytes,
    Machine,
    MachineError,
    Memory,
    Run,
    Sizes,
)
from mmfree_compiler.backends.fpga.isa.opcode import Counts, Instruction
from mmfree_compiler.backends.fpga.isa.sequence import issued, loops, shortened
from mmfree_compiler.backends.fpga.run.hazards import hazards
from mmfree_compiler.backends.fpga.strides import LINE


@dataclass(frozen=True)
class Loaded:
    """A program that was decoded and whose loops are sound."""

    instructions: Sequence[Instruction]
    ends: dict[int, int]

    @classmethod
    def of(cls, words: Bytes) -> Loaded:
        """Raises ArtifactError on malformed words, MachineError on loops that are not nested."""
        instructions = decode_program(words)
        return cls(instructions, loops(instructions))


@dataclass
class Simulator:
    """See transport.Transport. Results are those of any other order that the waits allow."""

    machine: Machine
    programs: dict[bytes, Loaded] = field(default_factory=dict)
    checked: set[tuple[bytes, Counts]] = field(default_factory=set)

    @classmethod
    def of(cls, sizes: Sizes, weights: Bytes) -> Simulator:
        """A machine with `weights` (lines, 64), which are not copied."""
        rest = np.zeros((sizes.memory, LINE), np.uint8)
        return cls(Machine(sizes, Memory(weights, rest)))

    def write(self, first: int, lines: Bytes) -> None:
        self.machine.memory.lines(first, len(lines), write=True)[:] = lines

    def read(self, first: int, count: int) -> Bytes:
        return self.machine.memory.lines(first, count).copy()

    def run(self, words: Bytes, run: Run) -> None:
        loaded = self.load(words, run)
        self.machine.start(run)
        with np.errstate(all="ignore"):  # infinity and NaN are results like others
            for place, iteration in issued(loaded.instructions, loaded.ends, run.steps):
                instruction = loaded.instructions[place]
                instruction.opcode.run(self.machine, instruction, iteration)

    def load(self, words: Bytes, run: Run) -> Loaded:
        """The program, checked for runs of this size."""
        key = bytes(words)
        if key not in self.programs:
            self.programs[key] = Loaded.of(words)
        loaded = self.programs[key]
        if (key, run.counts) not in self.checked:
            check(loaded.instructions, self.machine.sizes, run.counts)
            self.checked.add((key, run.counts))
        return loaded


def check(program: Sequence[Instruction], sizes: Sizes, counts: Counts) -> None:
    """Raise MachineError on what would go wrong on a machine of any speed, whatever the numbers.

    That is an instruction that touches lines beyond the end of a memory, and a hazard.
    """
    memories = {"scratch": sizes.scratch, "codes": sizes.codes}
    if max(counts) > sizes.tokens:
        raise MachineError("run", f"has {max(counts)} rows; the machine takes {sizes.tokens}")
    for at, instruction in enumerate(program):
        for touch in instruction.touches(counts):
            size = memories.get(touch.memory, touch.end)
            if touch.end > size:
                what = f"touches lines {touch.first} to {touch.end} of {touch.memory}"
                thing = f"instruction {at}, {instruction.opcode.name}"
                raise MachineError(thing, f"{what}, which has {size}")
    short, steps = shortened(program)
    for hazard in hazards(short, memories, counts, steps):
        thing = f"instruction {hazard.place}, {program[hazard.place].opcode.name}"
        raise MachineError(thing, hazard.what)
