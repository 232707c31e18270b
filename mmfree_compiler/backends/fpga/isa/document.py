"""The instruction set as Markdown: the tables of docs/targets/fpga.md."""

from __future__ import annotations

from collections.abc import Iterable

from mmfree_compiler.backends.fpga.isa.opcode import PLACES, Opcode, Operand
from mmfree_compiler.backends.fpga.isa.steps import CYCLES, latency
from mmfree_compiler.backends.fpga.isa.table import OPCODES
from mmfree_compiler.backends.fpga.isa.word import FIELDS, PAIRS, UNITS


def word() -> str:
    """The fields of a word."""
    rows = [
        (f"`{name}`", f"{field.low + field.width - 1}:{field.low}", str(field.width))
        for name, field in FIELDS.items()
    ]
    pairs = [
        (f"`{name}`", " and ".join(f"`{part}`" for part in parts), _width(parts))
        for name, parts in PAIRS.items()
    ]
    return _table(("field", "bits", "width"), [*rows, *pairs])


def instructions() -> str:
    """A table for each unit."""
    return "\n\n".join(f"### {unit.upper()}\n\n{_unit(unit)}" for unit in ("seq", *UNITS))


def steps() -> str:
    """The steps of pipelines and their cycles."""
    return _table(("step", "cycles"), [(f"`{name}`", str(n)) for name, n in CYCLES.items()])


SECTIONS = {"word": word, "instructions": instructions, "steps": steps}


def _unit(unit: str) -> str:
    header = ("instruction", "opcode", "operands", "modes", "passes", "latency", "what it does")
    return _table(header, [_row(o) for o in OPCODES.values() if o.unit == unit])


def _row(opcode: Opcode) -> tuple[str, ...]:
    operands = [_operand(operand) for operand in opcode.operands]
    modes = [f"{value} `{name}`" for value, name in enumerate(opcode.modes)]
    works = ["`rows`"] if opcode.counted else []
    return (
        f"`{opcode.name}`",
        f"{opcode.code:#04x}",
        ", ".join([*operands, *works]) or "none",
        ", ".join(modes),
        str(opcode.passes),
        str(latency(opcode.steps)),
        opcode.meaning.replace("|", "\\|"),
    )


def _operand(operand: Operand) -> str:
    """`dst`: rows of scratch in field a, read."""
    named = f"`{operand.name}`" + (f" (`{operand.field}`)" if operand.field != operand.name else "")
    if not operand.place:
        return named
    place = operand.place if operand.place in PLACES else "by mode"
    count = f" of {operand.count}" if operand.count else ""
    modes = f" ({' and '.join(operand.modes)} only)" if operand.modes else ""
    return f"{named} {place}{count}, {operand.access}{modes}"


def _width(parts: Iterable[str]) -> str:
    return str(sum(FIELDS[part].width for part in parts))


def _table(header: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> str:
    lines = [header, ("---",) * len(header), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
