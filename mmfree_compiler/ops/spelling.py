"""Declaring the ATen calls that become an op: overload -> rule.

    @op("pointwise", aten={aten.tanh.default: direct})

A rule makes calls of ops in the table that together compute the same as the ATen call.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

import torch
from torch.fx import Node

aten = torch.ops.aten

# A value of the graph or a number. None stands for a call that could not be made; a call that is
# given None makes None.
Operand = Node | float | None


class Builder(Protocol):
    """What a rule makes calls with; the pass that lowers ATen calls provides it."""

    op: str  # the name of the op whose file has the rule

    def __call__(self, name: str, *operands: Operand) -> Node | None:
        """A call of an op of the table, or None when it does not take these operands.

        The first must be a row. Each of the others is a row of the same shape, a constant of
        width 1 or of the row's width, or a number.
        """

    def is_constant(self, x: Operand) -> bool:
        """Whether x is known at compile time: a number, or computed from parameters alone."""


# Called with a builder and the arguments of the ATen call; None leaves that call as it is.
Rule = Callable[..., Node | None]
Spellings = Mapping[Any, Rule]  # by OpOverload


def direct(build: Builder, *operands: Operand) -> Node | None:
    """Call the op with the operands of the ATen call."""
    return build(build.op, *operands)


def commutative(build: Builder, x: Operand, y: Operand) -> Node | None:
    """For ops that are the same on (y, x): a constant becomes the second operand."""
    return build(build.op, y, x) if build.is_constant(x) else build(build.op, x, y)
