"""Notes of what passes did, node by node. Imports no torch: the runtime reads notes too."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Note:
    """One action of a pass; `node` names the resulting node."""

    pass_name: str
    node: str
    text: str
