"""Notes of what passes did, node by node. Imports no torch: the runtime reads notes too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby

from mmfree_compiler.wording import printable


@dataclass(frozen=True)
class Note:
    """One action of a pass; `node` names the resulting node."""

    pass_name: str
    node: str
    text: str


def text(notes: Iterable[Note]) -> str:
    """The notes as indented text, one paragraph per pass."""
    lines: list[str] = []
    for name, group in groupby(notes, key=lambda note: note.pass_name):
        members = list(group)
        width = max(len(note.node) for note in members)
        lines.append(f"{name} ({len(members)})")
        lines += [f"  {note.node:<{width}}  {note.text}" for note in members]
    return printable("\n".join(lines))
