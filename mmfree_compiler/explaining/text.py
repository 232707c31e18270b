"""An explanation as text: short, with all notes if wanted."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from pathlib import PurePath

from rich.console import Console, RenderableType
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from mmfree_compiler.explaining.drawn import Cost, StageBox
from mmfree_compiler.explaining.schema import Audit, Coverage, Explanation, PassStep, TargetPart
from mmfree_compiler.explaining.summary import audited
from mmfree_compiler.origin import placed
from mmfree_compiler.tables import facts, grid, size
from mmfree_compiler.wording import counted, printable, significant

WIDTH = 80
UNKNOWN = "-"


def text(explanation: Explanation, notes: bool = False) -> str:
    """The explanation in lines of at most WIDTH characters; `notes` adds those of all passes."""
    file = io.StringIO()
    console = Console(file=file, width=WIDTH, highlight=False, no_color=True, emoji=False)
    console.print(*rendered(explanation, notes), sep="\n")
    return "\n".join(line.rstrip() for line in file.getvalue().splitlines())


def rendered(explanation: Explanation, notes: bool = False) -> Iterator[RenderableType]:
    """The parts of the text."""
    yield Text(printable(explanation.model.title), "bold")
    if explanation.summary:
        yield _line(explanation.summary)
    if explanation.passes:
        yield _passes(explanation)
    if notes:
        yield from _notes(explanation.passes)
    for part in explanation.targets:
        yield from _target(part)
    if explanation.coverage:
        yield from _coverage(explanation.kinds, explanation.coverage)
    if explanation.audit:
        yield from _audit(explanation.audit)
    if explanation.failed:
        yield Text(f"\nNot compiled: {printable(explanation.failed)}")
    yield from (_line(f"\nNot known: {what}") for what in explanation.missing)


def profile_table(part: TargetPart) -> Table:
    """What a decode step costs, stage by stage; times beside the least possible ones.

    Parts of a stage that have times of their own follow it.
    """
    assert part.program is not None
    stages = part.program.stages
    known = [stage.cost.measured_us or 0.0 for stage in stages]
    total = sum(known) + sum(part.others_us.values())
    rows = [row for stage in stages for row in _stage(stage, total)]
    rows += [_other(what, us, total) for what, us in part.others_us.items()]
    header = ("", "ops", "bytes", "adds", "fp32", "µs", "roofline", "share")
    table = grid("\nA decode step, stage by stage", header, rows)
    table.columns[1].justify = "left"
    return table


def _line(sentence: str) -> Text:
    return Text(printable(sentence))


def _passes(explanation: Explanation) -> Table:
    """A row for each pass: ops before and after, notes, seconds, the difference."""
    header = ("pass", "stage", "ops", "lines", "notes", "seconds", "difference")
    table = grid("\nPasses", header, (_pass(explanation, step) for step in explanation.passes))
    table.columns[1].justify = "left"
    return table


def _pass(explanation: Explanation, step: PassStep) -> tuple[str, ...]:
    before, after = (
        None if at is None else explanation.snapshots[at] for at in (step.before, step.after)
    )
    ops = lines = UNKNOWN
    if before and after:
        ops, lines = f"{before.nodes} → {after.nodes}", f"{before.lines} → {after.lines}"
    seconds = UNKNOWN if step.seconds is None else f"{step.seconds:.2f}"
    largest = step.difference.largest
    differs = UNKNOWN if largest is None else f"{largest:.1e}"
    stage = step.stage.partition(":")[0]
    return step.name, stage, ops, lines, str(len(step.notes)), seconds, differs


def _notes(steps: Iterable[PassStep]) -> Iterator[RenderableType]:
    """What each pass does, and what it did, node by node."""
    for step in steps:
        yield Text(f"\n{printable(step.name)} ({len(step.notes)}), {printable(step.stage)}", "bold")
        if step.purpose:
            yield Padding(_line(step.purpose), (0, 0, 0, 2))
        yield Padding(facts((note.node, note.text) for note in step.notes), (0, 0, 0, 2))


def _target(part: TargetPart) -> Iterator[RenderableType]:
    rows = [
        ("builds", ", ".join(part.builds)),
        ("runs here", part.runs_here),
        ("ternary weights", _weights(part)),
        ("embedding", size(part.embedding_bytes) if part.embedding_bytes else ""),
        ("other constants", size(part.other_bytes) if part.other_bytes else ""),
        *((name, _row(row)) for name, row in part.memory.items()),
        *((name, _row(row)) for name, row in part.kernels.items()),
        ("ceilings", ceilings(part)),
        ("a decode step", decode(part)),
        *(("not known", what) for what in part.missing),
    ]
    yield facts([row for row in rows if row[1]], f"\nTarget {part.target}")
    if part.program:
        yield profile_table(part)


def _weights(part: TargetPart) -> str:
    if not part.weight_bytes:
        return ""
    return f"{size(part.weight_bytes)}, {part.bits_per_weight or 0:.3g} bits per weight"


def _row(row: dict[str, int | float | str]) -> str:
    return ", ".join(f"{name} {value}" for name, value in row.items())


def ceilings(part: TargetPart) -> str:
    """The rates of the machine, as far as they are known; "" where none is."""
    found = part.ceilings
    if found is None:
        return ""
    rates = (
        (found.bytes_per_second, "GB/s"),
        (found.integer_operations_per_second, "billion additions/s"),
        (found.float_operations_per_second, "billion fp32 operations/s"),
    )
    known = ", ".join(f"{rate / 1e9:,.3g} {unit}" for rate, unit in rates if rate)
    return f"{known} ({found.how})"


def decode(part: TargetPart) -> str:
    """The time of a decode step and what made it, "" where it is not known."""
    if part.decode_us is None:
        return ""
    threads = f" with {counted(part.threads, 'thread')}" if part.threads else ""
    least = f", at least {_us(part.roofline_us)} µs by the ceilings" if part.roofline_us else ""
    return f"{_us(part.decode_us)} µs {part.how}{threads}{least}"


def _stage(stage: StageBox, total: float) -> Iterator[tuple[str, ...]]:
    times = f" x{stage.times}" if stage.times > 1 else ""
    yield (stage.id.removeprefix("stage ") + times, stage.title, *_spent(stage.cost, total))
    for part in stage.parts:
        yield ("", f"- {part.title}", *_spent(part.cost, total))


def _spent(cost: Cost, total: float) -> tuple[str, ...]:
    measured = cost.measured_us
    work = (_nbytes(cost), _count(cost.integer_operations), _count(cost.float_operations))
    return (*work, _us(measured), _us(cost.roofline_us), _share(measured, total))


def _other(what: str, us: float, total: float) -> tuple[str, ...]:
    return ("", what, *[UNKNOWN] * 3, _us(us), UNKNOWN, _share(us, total))


def _share(us: float | None, total: float) -> str:
    return f"{us / total:.0%}" if us is not None and total else UNKNOWN


def _nbytes(cost: Cost) -> str:
    return size(cost.constant_bytes + cost.state_bytes)


def _count(number: int) -> str:
    """A number in at most four digits: "1.3M"."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= unit:
            return f"{number / unit:.3g}{name}"
    return str(number)


def _us(microseconds: float | None) -> str:
    return UNKNOWN if microseconds is None else significant(microseconds)


def _coverage(kinds: tuple[str, ...], rows: tuple[Coverage, ...]) -> Iterator[RenderableType]:
    """How often each op runs for one token, and the targets that cannot lower it."""
    yield _line(f"\nOps for one token, and the targets of {', '.join(kinds)} that lower them")
    yield facts((f"{row.op} x{row.count:,}", _lowered(kinds, row)) for row in rows)


def _lowered(kinds: tuple[str, ...], row: Coverage) -> str:
    lacking = [kind for kind in kinds if kind not in row.targets]
    if not row.targets:
        return "none"
    return f"all but {', '.join(lacking)}" if lacking else "all"


def _audit(audit: Audit) -> Iterator[RenderableType]:
    """What the search found, with the line of each product that is left."""
    yield _line(f"\nAudit of {counted(audit.examined, 'call')}: {audited(audit)}")
    for product in audit.products:
        place = placed(product.module, _short(product.source))
        yield Padding(_line(f"{product.op} {place}: {product.why}"), (0, 0, 0, 2))


def _short(source: str) -> str:
    """A source line without the folders of its file."""
    file, colon, rest = source.partition(":")
    return f"{PurePath(file).name}{colon}{rest}" if colon else source
