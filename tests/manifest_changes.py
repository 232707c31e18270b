"""Every small change of a JSON document: what an attacker tries with a manifest."""

from __future__ import annotations

import json
from collections.abc import Iterator
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np

from mmfree_compiler.artifact import read_archive, write_archive

Place = tuple[str | int, ...]
NUMBERS = (0, 1, -1, 2, 15, 64, 128, 1 << 31, 1 << 63, 10**40, 0.5, -0.0, 1e308)
OTHERS: tuple[object, ...] = (None, True, False, "", "x", "0" * 64, [], [1], {}, {"x": 1})


def changes(document: Any) -> Iterator[tuple[Place, Any]]:
    """(place, changed document) for each place in it: other values, one more, one less."""
    for place, value in _places(document):
        for other in _instead(value):
            if repr(other) != repr(value):
                yield place, _with(document, place, other)


def _places(value: Any, place: Place = ()) -> Iterator[tuple[Place, Any]]:
    if place:
        yield place, value
    keys = range(len(value)) if isinstance(value, list) else value
    for key in keys if isinstance(value, dict | list) else ():
        yield from _places(value[key], (*place, key))


def _instead(value: Any) -> Iterator[Any]:
    """Values to try in place of `value`, those of its own type among them."""
    yield from (*NUMBERS, *OTHERS)
    if isinstance(value, bool):
        yield not value
    elif isinstance(value, int | float):
        yield from (value + 1, value - 1, value + 64, value * 2, value // 2)
    elif isinstance(value, str):
        yield from (value[:-1], value + "x", value.swapcase(), value + "\x1b[2J")
    elif isinstance(value, list):
        yield from (value[1:], value[:-1], value[::-1], value + value[:1])
    elif isinstance(value, dict):
        yield from ({k: v for k, v in value.items() if k != key} for key in value)
        yield value | {"more": 1}


def _with(document: Any, place: Place, value: Any) -> Any:
    changed = inside = deepcopy(document)
    for key in place[:-1]:
        inside = inside[key]
    inside[place[-1]] = value
    return changed


def with_manifest(path: Path, text: str | bytes, changed: Path) -> Path:
    """Write to `changed` the artifact at `path` with another manifest.json."""
    members = read_archive(path).members
    data = text.encode() if isinstance(text, str) else text
    write_archive(changed, members | {"manifest.json": np.frombuffer(data, np.uint8)})
    return changed


def manifest_of(path: Path) -> Any:
    return json.loads(read_archive(path).members["manifest.json"].tobytes())
