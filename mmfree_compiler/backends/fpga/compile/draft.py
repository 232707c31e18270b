"""Instructions whose operands are names: what instruction selection makes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mmfree_compiler.backends.fpga.compile.stream import Item
from mmfree_compiler.backends.fpga.isa.opcode import Access, Opcode
from mmfree_compiler.backends.fpga.isa.table import OPCODES
from mmfree_compiler.backends.fpga.isa.word import COUNTS
from mmfree_compiler.program import Constant


@dataclass(frozen=True)
class Buffer:
    """Lines of a memory that have no address yet: `lines` for each of `rows`, one of COUNTS."""

    name: str
    memory: str
    lines: int
    rows: str = "one"


@dataclass(frozen=True)
class Draft:
    """An instruction; `buffers` says what is in the fields that hold addresses.

    `place` names what is at its address in the device's memory; `items` are what it takes from the
    stream. `node` is the first output of the node that it is for, "" where it is for none.
    """

    opcode: Opcode
    numbers: Mapping[str, int] = field(default_factory=dict)
    buffers: Mapping[str, Buffer] = field(default_factory=dict)
    place: str = ""
    items: tuple[Item, ...] = ()
    node: str = ""

    @classmethod
    def of(
        cls,
        name: str,
        rows: str = "one",
        mode: str = "",
        address: str = "",
        items: tuple[Item, ...] = (),
        **operands: int | Buffer,
    ) -> Draft:
        """An instruction by the names of its operands."""
        opcode = OPCODES[name]
        fields = {operand.name: operand.field for operand in opcode.operands}
        numbers = {fields[k]: x for k, x in operands.items() if isinstance(x, int)}
        buffers = {fields[k]: x for k, x in operands.items() if isinstance(x, Buffer)}
        if opcode.counted:
            numbers["rows"] = COUNTS.index(rows)
        if mode:
            numbers["mode"] = opcode.modes.index(mode)
        return cls(opcode, numbers, buffers, address, items)

    def accesses(self) -> Mapping[str, Access]:
        """Each buffer and register by name, and what is done with it."""
        access = {operand.field: operand.access for operand in self.opcode.operands}
        found = dict(self.opcode.registers)
        for name, buffer in self.buffers.items():
            known = found.setdefault(buffer.name, access[name])
            if known != access[name]:
                found[buffer.name] = "update"
        return found


@dataclass
class Part:
    """Drafts that run `count` times, one after the other."""

    count: int
    drafts: list[Draft] = field(default_factory=list)

    @property
    def lines(self) -> int:
        """Lines of the stream that all iterations take."""
        return self.count * sum(item.lines for draft in self.drafts for item in draft.items)

    def constants(self) -> Iterator[Constant]:
        """What they take from the stream, in order."""
        for iteration in range(self.count):
            for item in (item for draft in self.drafts for item in draft.items):
                name = item.name if self.count == 1 else f"{item.name}[{iteration}]"
                yield item.constant(name, iteration)


def place(kind: str, name: str) -> str:
    """A place in the device's memory: the "table", "state", "input" or "output" of a name."""
    return f"{kind} {name}"
