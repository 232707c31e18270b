"""Instructions as words, and back."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.backends.fpga.isa.opcode import Instruction
from mmfree_compiler.backends.fpga.isa.table import BY_CODE
from mmfree_compiler.backends.fpga.isa.word import FIELDS, NO_WAIT, PAIRS, UNITS, WORD_BYTES
from mmfree_compiler.errors import ArtifactError

_NUMBERS = ("n", "m", "dst", "a", "b", "c")
MAX_BYTES = 1 << 24  # of a program; that of a language model takes some thousands


def encode(instruction: Instruction) -> int:
    """The word of an instruction. Raises OverflowError on a number that its field cannot hold."""
    waits = {f"wait_{unit}": instruction.waits[u] for u, unit in enumerate(UNITS)}
    numbers = {name: instruction.get(name) for name in ("rows", "mode", *_NUMBERS)}
    word = 0
    for name, value in ({"opcode": instruction.opcode.code} | waits | numbers).items():
        field = FIELDS[name]
        if not 0 <= value <= field.most:
            thing = f"{instruction.opcode.name}: {name} is {value}"
            raise OverflowError(f"{thing}, which does not fit into {field.width} bits")
        word |= value << field.low
    return word


def decode(word: int) -> Instruction:
    """The instruction of a word. Raises ArtifactError on a word that `encode` never makes."""
    values = {name: word >> field.low & field.most for name, field in FIELDS.items()}
    opcode = BY_CODE.get(values["opcode"])
    if opcode is None:
        raise _malformed(word, f"has the unknown opcode {values['opcode']:#04x}")
    waits = tuple(values[f"wait_{unit}"] for unit in UNITS)
    numbers = {name: values[name] for name in ("rows", "mode", *_NUMBERS)}
    instruction = Instruction(opcode, waits=waits, **numbers)
    for fault in faults(instruction):
        raise _malformed(word, f"is {opcode.name}, {fault}")
    return instruction


def encode_program(program: Iterable[Instruction]) -> bytes:
    """The words of a program, 16 bytes each, the lowest first."""
    return b"".join(encode(instruction).to_bytes(WORD_BYTES, "little") for instruction in program)


def decode_program(words: bytes | NDArray[np.uint8]) -> list[Instruction]:
    """The inverse of `encode_program`. Raises ArtifactError on words that it never makes."""
    data = bytes(words)
    if len(data) % WORD_BYTES or len(data) > MAX_BYTES:
        cause = f"has {len(data)} bytes, not {WORD_BYTES} for each word, or too many"
        raise ArtifactError("program", cause, "Compile the model again")
    starts = range(0, len(data), WORD_BYTES)
    return [decode(int.from_bytes(data[at : at + WORD_BYTES], "little")) for at in starts]


def used_fields(instruction: Instruction) -> set[str]:
    """The fields of numbers that its operands are in."""
    fields = (operand.field for operand in instruction.operands)
    return {part for field in fields for part in PAIRS.get(field, (field,))}


def faults(instruction: Instruction) -> Iterable[str]:
    """What no instruction of its opcode may have."""
    opcode = instruction.opcode
    if instruction.mode >= max(1, len(opcode.modes)):
        yield f"which has no mode {instruction.mode}"
        return
    for name in _NUMBERS:
        if name not in used_fields(instruction) and instruction.get(name):
            yield f"which has no operand in field {name}"
    if instruction.rows and not opcode.counted:
        yield "which does not work on a number of rows"
    for operand in instruction.operands:
        if instruction.get(operand.field) < operand.least:
            yield f"whose {operand.name} is less than {operand.least}"
    if opcode.unit == "seq" and set(instruction.waits) != {NO_WAIT}:
        yield "which does not wait"


def _malformed(word: int, cause: str) -> ArtifactError:
    return ArtifactError(f"word {word:#034x}", cause, "Compile the model again")
