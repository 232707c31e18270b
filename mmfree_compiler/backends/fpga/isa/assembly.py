"""Programs as text: one instruction on a line, `name operand=number ... wait=unit:number,...`.

    quant dst=12 a=0 outer=64 inner=80 constants=32 n=256 mode=norms rows=tokens wait=tmm:0,vec:1

Operands that are 0 and waits for nothing are left out. `#` begins a comment.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from mmfree_compiler.backends.fpga.isa.encoding import faults
from mmfree_compiler.backends.fpga.isa.opcode import Instruction, Opcode
from mmfree_compiler.backends.fpga.isa.table import OPCODES
from mmfree_compiler.backends.fpga.isa.word import COUNTS, NO_WAIT, UNITS, most
from mmfree_compiler.errors import InputError


def disassemble(program: Iterable[Instruction]) -> str:
    """The text of a program, with the bodies of loops indented."""
    depth, lines = 0, []
    for instruction in program:
        name = instruction.opcode.name
        depth = max(0, depth - (name == "next"))
        lines.append("  " * depth + " ".join(_words(instruction)))
        depth += name == "loop"
    return "".join(f"{line}\n" for line in lines)


def assemble(text: str) -> list[Instruction]:
    """The inverse of `disassemble`. Raises InputError with the number of a line that is wrong."""
    program = []
    for number, line in enumerate(text.splitlines(), 1):
        words = line.partition("#")[0].split()
        if words:
            try:
                program.append(_instruction(*words))
            except ValueError as error:
                hint = "docs/targets/fpga.md lists the instructions"
                raise InputError(f"line {number}: {line.strip()}", str(error), hint) from None
    return program


def _words(i: Instruction) -> Iterator[str]:
    yield i.opcode.name
    for operand in i.operands:
        if value := i.get(operand.field):
            yield f"{operand.name}={value}"
    if i.mode:
        yield f"mode={i.opcode.modes[i.mode]}"
    if i.rows:
        yield f"rows={COUNTS[i.rows]}"
    waits = [f"{u}:{k}" for u, k in zip(UNITS, i.waits, strict=True) if k != NO_WAIT]
    if waits:
        yield f"wait={','.join(waits)}"


def _instruction(name: str, *words: str) -> Instruction:
    if name not in OPCODES:
        raise ValueError(f"unknown instruction {name!r}")
    opcode = OPCODES[name]
    fields = {operand.name: operand.field for operand in opcode.operands}
    numbers: dict[str, int] = {}
    waits = (NO_WAIT,) * len(UNITS)
    for word in words:
        key, _, value = word.partition("=")
        if key == "wait" and opcode.unit != "seq":
            waits = _waits(value)
        elif key == "mode" and opcode.modes:
            numbers["mode"] = _index(value, opcode.modes)
        elif key == "rows" and opcode.counted:
            numbers["rows"] = _index(value, COUNTS)
        elif key in fields:
            numbers[fields[key]] = _number(value, most(fields[key]))
        else:
            raise ValueError(f"{name} has no operand {key!r}: {_known(opcode)}")
    made = Instruction(opcode, waits=waits).with_fields(**numbers)
    for fault in faults(made):
        raise ValueError(f"{name}, {fault}")
    return made


def _known(opcode: Opcode) -> str:
    return "it has " + ", ".join(operand.name for operand in opcode.operands)


def _waits(text: str) -> tuple[int, ...]:
    found = dict.fromkeys(UNITS, NO_WAIT)
    for part in text.split(","):
        unit, _, distance = part.partition(":")
        found[UNITS[_index(unit, UNITS)]] = _number(distance, NO_WAIT)
    return tuple(found.values())


def _index(word: str, known: tuple[str, ...]) -> int:
    if word not in known:
        raise ValueError(f"{word!r} is not one of {', '.join(known)}")
    return known.index(word)


def _number(text: str, limit: int) -> int:
    value = int(text, 0)
    if not 0 <= value <= limit:
        raise ValueError(f"{text} is not a number from 0 to {limit}")
    return value
