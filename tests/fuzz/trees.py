"""Mutations of JSON documents that stay JSON."""

from __future__ import annotations

import copy
import json
import random
from collections.abc import Callable, Iterator
from typing import Any

Place = tuple[Any, Any]  # a dict and a key, or a list and an index

# Values that have broken readers before; escapes must not reach a terminal.
EXTREMES: tuple[Any, ...] = (
    *(None, True, False, "", [], {}, [[]], [{}], {"": {}}),
    *(0, 1, -1, 2, 3, 64, 127, 128, 255, 256, 65535, 65536),
    *(2**31 - 1, 2**31, 2**32, 2**48, 2**53, 2**63 - 1, 2**63, 2**64, -(2**63), 10**40),
    *(0.0, -0.0, 0.5, 1.0, 1e-45, 1e308, -1e308, float("nan"), float("inf")),
    *("0", "1", "nan", "x" * 5000, "\x1b[2J\x1b[31m", "\0", "\ud800", "../x", "/", "é" * 40),
    *("int64", "float32", "float16", "int8", "dense", "row", "table", "ternary", "cpu", "lm"),
    [0, 1, 2],
    [2**31] * 8,
    list(range(3000)),
)


def _remove(_: random.Random, parent: Any, key: Any) -> None:
    del parent[key]


def _replace(rng: random.Random, parent: Any, key: Any) -> None:
    parent[key] = copy.deepcopy(rng.choice(EXTREMES))


def _nudge(rng: random.Random, parent: Any, key: Any) -> None:
    """A number nearby, which other fields may still agree with."""
    if isinstance(parent[key], int | float):
        changes: tuple[Callable[[Any], Any], ...] = (
            *(lambda x: x + 1, lambda x: x - 1, lambda x: x * 2, lambda x: x // 2),
            *(lambda x: -x, lambda x: x + 64, lambda x: x - 64, float),
        )
        parent[key] = rng.choice(changes)(parent[key])
    elif isinstance(parent[key], str):
        text = parent[key]
        at = rng.randint(0, len(text))
        parent[key] = text[:at] + rng.choice(("", "x", "0", "\n", "\x1b[1m", " ")) + text[at + 1 :]
    else:
        _repeat(rng, parent, key)


def _repeat(rng: random.Random, parent: Any, key: Any) -> None:
    """One more copy of the value, or of an item of it."""
    if isinstance(parent, list):
        parent.insert(key, copy.deepcopy(parent[key]))
    else:
        parent[f"{key}{rng.choice(('x', '2', ' '))}"] = copy.deepcopy(parent[key])


def _rename(rng: random.Random, parent: Any, key: Any) -> None:
    if isinstance(parent, dict):
        value = parent.pop(key)
        parent[rng.choice((f"{key}_", key.upper(), "", "x" * 300, *parent))] = value
    else:
        rng.shuffle(parent)


def _exchange(rng: random.Random, parent: Any, key: Any) -> None:
    """Two values of one parent change places."""
    other = rng.choice(list(parent) if isinstance(parent, dict) else range(len(parent)))
    parent[key], parent[other] = parent[other], parent[key]


_CHANGES = (_remove, _replace, _replace, _nudge, _nudge, _nudge, _repeat, _rename, _exchange)


def places(tree: Any) -> Iterator[Place]:
    """Every value below the root, as its parent and key."""
    keys = list(tree) if isinstance(tree, dict) else range(len(tree))
    for key in keys:
        yield tree, key
        if isinstance(tree[key], dict | list):
            yield from places(tree[key])


def mutated(rng: random.Random, tree: Any) -> bytes:
    """The text of `tree` after one to three changes, mostly one; some keys may appear twice."""
    tree = copy.deepcopy(tree)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        found = list(places(tree)) if isinstance(tree, dict | list) else []
        if found:
            rng.choice(_CHANGES)(rng, *rng.choice(found))
    return _text(rng, tree)


def equally_mutated(rng: random.Random, tree: Any) -> bytes:
    """The text of `tree` with one number replaced wherever it stands: it stays consistent."""
    numbers = [p[k] for p, k in places(tree) if type(p[k]) is int]
    old = rng.choice(numbers)
    new = rng.choice((0, 1, old - 1, old + 1, old * 2, old // 2, 2**31, old + 64, 3))
    tree = copy.deepcopy(tree)
    for parent, key in list(places(tree)):
        if parent[key] == old and type(parent[key]) is int:
            parent[key] = new
    return _text(rng, tree)


def _text(rng: random.Random, tree: Any) -> bytes:
    text = json.dumps(tree)
    if rng.random() < 0.02:
        text = text[: rng.randint(0, len(text))]
    elif rng.random() < 0.02 and isinstance(tree, dict) and tree:
        key = rng.choice(list(tree))
        text = f"{text[:-1]}, {json.dumps(key)}: {json.dumps(rng.choice(EXTREMES))}}}"
    return text.encode("utf-8", "surrogatepass")


def difference(old: Any, text: bytes) -> str:
    """Where the document `text` differs from `old`, in short."""
    try:
        new = json.loads(text)
    except ValueError:
        return "not JSON"
    return "; ".join(_differences(old, new, "$")) or "equal, but for repeated keys"


def _differences(old: Any, new: Any, at: str) -> Iterator[str]:
    if isinstance(old, dict) and isinstance(new, dict):
        for key in [*old, *(new.keys() - old.keys())]:
            if key not in new or key not in old:
                yield f"{at}.{key[:40]} {'added' if key in new else 'removed'}"
            else:
                yield from _differences(old[key], new[key], f"{at}.{key}")
    elif isinstance(old, list) and isinstance(new, list) and len(old) == len(new):
        for k, (one, other) in enumerate(zip(old, new, strict=True)):
            yield from _differences(one, other, f"{at}[{k}]")
    elif json.dumps(old) != json.dumps(new):
        yield f"{at}: {json.dumps(old)[:80]} -> {json.dumps(new)[:80]}"
