"""The benchmark's document: what was measured, kept as JSON.

`groups` has an entry for each shape and task, in it the figures of peers. A newer figure replaces
an older one of the same peer, so that a benchmark can be run in pieces, whose files are merged.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from benchmarks.gpu.tasks import TASKS
from benchmarks.shapes import Shape

Document = dict[str, Any]


def empty() -> Document:
    """A document in which nothing was measured."""
    return {"machine": {}, "shapes": {}, "groups": []}


def read(paths: Iterable[Path]) -> Document:
    """All documents in one; what later ones measured again replaces what earlier ones did."""
    document = empty()
    for path in paths:
        found = json.loads(path.read_text())
        document["machine"] |= found["machine"]
        document["shapes"] |= found["shapes"]
        for group in found["groups"]:
            keep(document, group)
    return document


def write(document: Document, path: Path) -> None:
    """Write it, completely or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(document, indent=1) + "\n")
    partial.replace(path)


def keep(document: Document, new: dict[str, Any]) -> None:
    """Put a group into the document."""
    others = [group for group in document["groups"] if _key(group) != _key(new)]
    figures: dict[str, Any] = {}
    skipped: dict[str, str] = {}
    for group in document["groups"]:
        if _key(group) == _key(new):
            figures, skipped = group["figures"], group["skipped"]
    figures = figures | new["figures"]
    reasons = {p: reason for p, reason in (skipped | new["skipped"]).items() if p not in figures}
    merged = new | {"figures": figures, "skipped": reasons}
    document["groups"] = sorted([*others, merged], key=_order)


def add_shape(document: Document, shape: Shape) -> None:
    """Put the sizes of a shape into the document."""
    document["shapes"].setdefault(shape.name, {})["shape"] = asdict(shape)


def _key(group: dict[str, Any]) -> tuple[str, str]:
    return group["shape"], group["task"]


def _order(group: dict[str, Any]) -> tuple[int, int]:
    return Shape.of(group["shape"]).parameters, list(TASKS).index(group["task"])
