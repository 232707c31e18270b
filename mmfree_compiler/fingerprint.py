"""The identity of a compiled model, the same on every target: a hash of its Program."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import replace
from itertools import count

import numpy as np

from mmfree_compiler.elementary import ARITHMETIC
from mmfree_compiler.parallel import each
from mmfree_compiler.program import Array, Attr, Constant, Loop, Node, Program, Stage
from mmfree_compiler.program_text import listing


def fingerprint(program: Program) -> str:
    """SHA-256, in hex, of what a Program before any backend's passes computes.

    Names of values and constants do not count, nor whether equal constants are one: a checkpoint
    and what is imported of its export have the same. The version of the arithmetic counts:
    artifacts with equal fingerprints can exchange states, and every target continues them with the
    same bits.
    """
    text = f"arithmetic {ARITHMETIC}\n{listing(_canonical(program))}"
    return hashlib.sha256(text.encode()).hexdigest()


class _Names(dict[str, str]):
    """New names by old ones: values are numbered as they are asked for, constants are in it."""

    def __init__(self, constants: dict[str, str]) -> None:
        super().__init__(constants)
        self._numbers = count()

    def __missing__(self, name: str) -> str:
        self[name] = f"v{next(self._numbers)}"
        return self[name]

    def all(self, names: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(self[name] for name in names)


def _canonical(program: Program) -> Program:
    """The Program with its values numbered, and each constant called by what it holds."""
    held = dict(zip(program.constants, _held(program), strict=True))
    names = _Names({name: constant.name for name, constant in held.items()})
    inputs = names.all(program.inputs)
    body = tuple(
        _loop(names, step) if isinstance(step, Loop) else _stage(names, step)
        for step in program.body
    )
    return replace(
        program,
        inputs=inputs,
        outputs=names.all(program.outputs),
        values={
            names[old]: replace(value, name=names[old]) for old, value in program.values.items()
        },
        constants={c.name: c for c in sorted(held.values(), key=lambda c: c.name)},
        body=body,
    )


def _held(program: Program) -> Iterator[Constant]:
    """The constants, called by their kinds and the hashes of their parts, of equal ones the first.

    Layers that share a constant and layers with equal ones are the same.
    """
    constants = program.constants.values()
    digests = iter(each(_digest, [part for c in constants for part in c.parts]))
    for constant in constants:
        found = [next(digests) for _ in constant.parts]
        kept = found if len(set(found)) > 1 else found[:1]
        name = " ".join([constant.role, constant.dtype, str(constant.shape), *kept])
        yield replace(constant, name=name, parts=constant.parts[: len(kept)])


def _digest(part: Array) -> str:
    return hashlib.sha256(np.ascontiguousarray(part).view(np.uint8).data).hexdigest()


def _loop(names: _Names, loop: Loop) -> Loop:
    carried = tuple((names[initial], names[inside]) for initial, inside in loop.carried)
    body = tuple(_stage(names, stage) for stage in loop.body)
    return Loop(loop.count, body, carried, names.all(loop.updates), names.all(loop.results))


def _stage(names: _Names, stage: Stage) -> Stage:
    rows, tiles = (
        tuple(_node(names, node) for node in nodes) for nodes in (stage.rows, stage.tiles)
    )
    return Stage(rows, tiles)


def _node(names: _Names, node: Node) -> Node:
    inputs = tuple(None if name is None else names[name] for name in node.inputs)
    attrs = {name: _rounded(attr) for name, attr in node.attrs.items()}
    return replace(node, inputs=inputs, outputs=names.all(node.outputs), attrs=attrs)


def _rounded(attr: Attr) -> Attr:
    """Numbers in fp32, as every target computes with them and ONNX stores them."""
    with np.errstate(over="ignore"):
        return float(np.float32(attr)) if isinstance(attr, float) else attr
