"""A small matcher of operation trees: passes state their rules as data.

    SILU = OneOf((call(aten.silu.default, X), mul(X, call(aten.sigmoid.default, X))))
    for bound in match(SILU, node): bound["x"]

A pattern is a tree of `Call`, `OneOf`, `Var`, `Number` and `Literal`. The same name twice must bind
the same node (or equal numbers), and products and sums match with their operands in either order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import torch
from torch import Tensor
from torch.fx import Node

aten = torch.ops.aten
COMMUTATIVE = {aten.mul.Tensor, aten.add.Tensor}

Bound = dict[str, Any]


@dataclass(frozen=True)
class Var:
    """Any node that is a tensor; with `constant`, only one that depends on parameters only."""

    name: str
    constant: bool = False


@dataclass(frozen=True)
class Number:
    """Any number among a call's arguments."""

    name: str


@dataclass(frozen=True)
class Literal:
    """An argument that equals `value`, for instance a list of dimensions."""

    value: Any


@dataclass(frozen=True)
class Call:
    """A call of `target` with as many arguments as `args`, each matching."""

    target: Any
    args: tuple[Pattern, ...]


@dataclass(frozen=True)
class OneOf:
    """Any of several patterns."""

    choices: tuple[Pattern, ...]


Pattern = Var | Number | Literal | Call | OneOf


def call(target: Any, *args: Pattern) -> Call:
    return Call(target, args)


def mul(x: Pattern, y: Pattern) -> Call:
    return Call(aten.mul.Tensor, (x, y))


def add(x: Pattern, y: Pattern) -> Call:
    return Call(aten.add.Tensor, (x, y))


def one_minus(x: Pattern) -> OneOf:
    """`1 - x` as torch.export writes it, and as a sum."""
    one = Literal(1)
    return OneOf((call(aten.rsub.Scalar, x, one), add(call(aten.neg.default, x), one)))


def match(
    pattern: Pattern, value: Any, constants: set[Node], bound: Bound | None = None
) -> Iterator[Bound]:
    """Every way in which the tree that ends at `value` matches the pattern, as name -> node."""
    bound = {} if bound is None else bound
    if isinstance(pattern, OneOf):
        for choice in pattern.choices:
            yield from match(choice, value, constants, bound)
    elif isinstance(pattern, Call):
        if isinstance(value, Node) and value.target == pattern.target and not value.kwargs:
            yield from _match_arguments(pattern, value, constants, bound)
    elif isinstance(pattern, Literal):
        if not isinstance(value, Node) and value == pattern.value:
            yield bound
    elif _accepts(pattern, value, constants) and bound.get(pattern.name, value) == value:
        yield {**bound, pattern.name: value}


def first(pattern: Pattern, value: Any, constants: set[Node]) -> Bound | None:
    """The first match, or None."""
    return next(match(pattern, value, constants), None)


def is_tensor(value: Any) -> TypeGuard[Node]:
    """Whether an argument is a tensor of the graph, not a number or a size."""
    return isinstance(value, Node) and isinstance(value.meta.get("val"), Tensor)


def _accepts(pattern: Var | Number, value: Any, constants: set[Node]) -> bool:
    if isinstance(pattern, Var):
        return is_tensor(value) and (value in constants or not pattern.constant)
    return isinstance(value, int | float)


def _match_arguments(
    pattern: Call, node: Node, constants: set[Node], bound: Bound
) -> Iterator[Bound]:
    if len(node.args) != len(pattern.args):
        return
    yield from _match_all(pattern.args, node.args, constants, bound)
    if node.target in COMMUTATIVE:
        yield from _match_all(pattern.args, node.args[::-1], constants, bound)


def _match_all(
    patterns: Sequence[Pattern], values: Sequence[Any], constants: set[Node], bound: Bound
) -> Iterator[Bound]:
    """Every way in which all values match their patterns, with names bound alike."""
    if not patterns:
        yield bound
        return
    for more in match(patterns[0], values[0], constants, bound):
        yield from _match_all(patterns[1:], values[1:], constants, more)
