"""What each pass did, node by node; free of torch, so that the runtime may read notes too."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby


@dataclass(frozen=True)
class Note:
    """One thing that a pass did: `node` names the node that it left behind."""

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
    return "\n".join(lines)
