"""`mmfree verify` against another compiled model: their bits."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING

from rich.progress import BarColumn, TextColumn

from mmfree_compiler.cli.output import emit, progress
from mmfree_compiler.tables import facts
from mmfree_compiler.wording import counted

if TYPE_CHECKING:
    from mmfree_compiler.runtime import Session
    from mmfree_compiler.same_bits import Report


def compare_bits(
    session: Session, other: Session, tokens: int, seed: int, quiet: bool, json: bool
) -> bool:
    """Print how the bits of two sessions of one model differ; whether they agree."""
    from mmfree_compiler.same_bits import same_bits

    with progress(TextColumn("{task.description}"), BarColumn(), quiet=quiet or json) as bar:
        task = bar.add_task("compare", total=tokens)
        report = same_bits(session, other, tokens, seed, lambda count: bar.advance(task, count))
    document = asdict(report) | {"passed": report.passed}
    emit(json, document, facts(_rows(report)))
    return report.passed


def _rows(report: Report) -> list[tuple[str, str]]:
    verdict = "the same bits" if report.passed else "NOT the same bits"
    rows = [
        ("prompts", f"{report.prompts:,} random ones, {counted(report.tokens, 'token')}"),
        ("compared", f"{counted(report.numbers, 'number')}, logits and states"),
        ("differing bits", f"{report.differing_bits:,}"),
        ("verdict", verdict),
    ]
    if report.first is not None:
        first = report.first
        where = f"prompt {first.prompt}, token {first.token}, {first.output}"
        rows.insert(-1, ("first difference", where))
    return rows
