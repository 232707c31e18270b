"""SEQ: the sequencer, which reads the program and gives each unit its instructions."""

from __future__ import annotations

from mmfree_compiler.backends.fpga.isa.machine import Machine
from mmfree_compiler.backends.fpga.isa.opcode import Instruction, Opcode, Operand


def _stream(machine: Machine, i: Instruction, _: int) -> None:
    machine.streams.append((i.address, i.address + i.get("length")))


def _nothing(machine: Machine, i: Instruction, _: int) -> None:
    """Loops are the sequencer's own: see sequencer.py."""


SEQ = (
    Opcode("end", 0x00, "seq", (), "the program ends here", _nothing, counted=False),
    Opcode(
        "loop",
        0x01,
        "seq",
        (Operand("count", "m"),),
        "begins a loop of `count` iterations; 0: as many as the register `steps` says",
        _nothing,
        counted=False,
    ),
    Opcode(
        "next",
        0x02,
        "seq",
        (),
        "ends an iteration of the innermost loop",
        _nothing,
        counted=False,
    ),
    Opcode(
        "stream",
        0x03,
        "seq",
        (Operand("address", "address"), Operand("length", "length")),
        "`length` lines from address on are read, behind those of the last stream; TMM takes them"
        " in order",
        _stream,
        counted=False,
    ),
)
