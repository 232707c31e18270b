"""What a row of the instruction table says: Opcode; and one instruction of a program."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

from mmfree_compiler.backends.fpga.isa.word import COUNTS, FIELDS, NO_WAIT, PAIRS, UNITS
from mmfree_compiler.backends.fpga.strides import code_lines, row_lines

if TYPE_CHECKING:
    from mmfree_compiler.backends.fpga.isa.machine import Machine

Access = Literal["read", "write", "update"]
Counts = tuple[int, int, int, int]  # the number of rows for each of COUNTS


@dataclass(frozen=True)
class Size:
    """What the size of an operand depends on: the number of rows, the width of a row, the field m,
    and the number of sequences.
    """

    rows: int
    width: int
    m: int
    sequences: int


# What an operand of a memory is: the memory, and how many of its lines an instruction touches.
PLACES: dict[str, tuple[str, Callable[[Size], int]]] = {
    "rows": ("scratch", lambda s: s.rows * row_lines(s.width)),
    "row": ("scratch", lambda s: row_lines(s.width)),
    "number": ("scratch", lambda _: 1),
    "taps": ("scratch", lambda s: s.m * row_lines(s.width)),
    "state": ("scratch", lambda s: s.sequences * row_lines(s.width)),
    "states": ("scratch", lambda s: s.sequences * s.m * row_lines(s.width)),
    "codes": ("codes", lambda s: s.rows * code_lines(s.width)),
}
FORMS = ("rows", "row", "number")  # what the second operand of VEC is, by its mode


@dataclass(frozen=True)
class Operand:
    """An operand: its `name` in assembly, the field that holds it, and what it is.

    `place` is a key of PLACES, "form" (the mode says which of FORMS), or "" for a plain number.
    `width` is the field with the number of a row's elements. `count` names other rows than those
    that the instruction works on. `least` is the smallest number that a program may have there.
    `modes` are those in which there is such an operand; empty: all.
    """

    name: str
    field: str
    place: str = ""
    access: Access = "read"
    width: str = "n"
    count: str = ""
    least: int = 0
    modes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Opcode:
    """One row of the table.

    `unit` is one of UNITS, or "seq". `modes` name the values of the mode field; `counted` says
    whether the rows field is used. `meaning` is for people. `run` does it on a Machine, and gets
    the iteration of the innermost loop. `registers` are (name, access) of registers that it uses.
    The unit reads a row `passes` times, and its pipeline computes `steps` one after the other.
    """

    name: str
    code: int
    unit: str
    operands: tuple[Operand, ...]
    meaning: str
    run: Callable[[Machine, Instruction, int], None] = field(repr=False)
    modes: tuple[str, ...] = ()
    counted: bool = True
    registers: tuple[tuple[str, Access], ...] = ()
    passes: int = 1
    steps: tuple[str, ...] = ()


@dataclass(frozen=True)
class Touch:
    """Lines of a memory, [first, end), that an instruction reads or writes.

    One that is updated is read and written.
    """

    memory: str
    first: int
    end: int
    access: Access

    def conflicts(self, other: Touch) -> bool:
        """Whether the order of the two matters."""
        apart = self.end <= other.first or other.end <= self.first
        both_read = self.access == other.access == "read"
        return self.memory == other.memory and not apart and not both_read


@dataclass(frozen=True)
class Instruction:
    """An opcode and its fields. `waits[u]`: wait until all but the last `waits[u]` instructions of
    unit u that stand in front of this one are done; NO_WAIT: do not wait for unit u.
    """

    opcode: Opcode
    rows: int = 0
    mode: int = 0
    waits: tuple[int, ...] = (NO_WAIT,) * len(UNITS)
    n: int = 0
    m: int = 0
    dst: int = 0
    a: int = 0
    b: int = 0
    c: int = 0

    def get(self, name: str) -> int:
        """The number in a field, or in a pair of fields."""
        if name in PAIRS:
            low, high = PAIRS[name]
            return int(getattr(self, low) | getattr(self, high) << FIELDS[low].width)
        return int(getattr(self, name))

    @property
    def operands(self) -> Iterator[Operand]:
        """Those of its mode."""
        for operand in self.opcode.operands:
            if not operand.modes or self.opcode.modes[self.mode] in operand.modes:
                yield operand

    @property
    def address(self) -> int:
        """The line of the device's memory."""
        return self.get("address")

    def with_fields(self, **values: int) -> Instruction:
        """A copy with some fields, or pairs of fields, changed."""
        parts: dict[str, int] = {}
        for name, value in values.items():
            if name in PAIRS:
                low, high = PAIRS[name]
                parts[low] = value & FIELDS[low].most
                parts[high] = value >> FIELDS[low].width
            else:
                parts[name] = value
        return replace(self, **parts)  # type: ignore[arg-type]  # fields of numbers only

    def touches(self, counts: Counts) -> Iterator[Touch]:
        """What it reads and writes when it runs on `counts` rows."""
        for operand in self.operands:
            if operand.place:
                yield self._touch(operand, counts)
        for name, access in self.opcode.registers:
            yield Touch(name, 0, 1, access)

    def _touch(self, operand: Operand, counts: Counts) -> Touch:
        place = FORMS[self.mode] if operand.place == "form" else operand.place
        memory, extent = PLACES[place]
        rows = counts[COUNTS.index(operand.count) if operand.count else self.rows]
        first = self.get(operand.field)
        sequences = counts[COUNTS.index("sequences")]
        lines = extent(Size(rows, self.get(operand.width), self.m, sequences))
        return Touch(memory, first, first + lines, operand.access)
