"""What is left of ATen's pointwise ops -> the op table's, by a table."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from mmfree_compiler.passes.constants import attribute, constant_nodes
from mmfree_compiler.passes.pattern import aten
from mmfree_compiler.passes.rewrite import (
    calls,
    constant,
    finish,
    insert,
    is_fp32,
    note,
    overload,
    replace,
    same_shape,
)

Operand = Node | float


@dataclass
class Builder:
    """Makes mmfree calls before `node`; numbers become constants of one element."""

    gm: GraphModule
    node: Node
    constants: set[Node]
    numbers: dict[float, Node]

    def unary(self, name: str, x: Node) -> Node:
        return insert(self.node, overload(name), x)

    def binary(self, name: str, x: Operand, y: Operand) -> Node | None:
        """`name(x, y)` with rows first: the table takes constants as second operands only."""
        if self._is_constant(x):
            x, y = y, x
        if self._is_constant(x) or not isinstance(x, Node):
            return None
        row = self._row(y, x)
        return row and insert(self.node, overload(name), x, row)

    def minus(self, x: Operand, y: Operand) -> Node | None:
        if self._is_constant(x) and isinstance(y, Node):
            return self.binary("add", self.unary("neg", y), x)
        return self.binary("sub", x, y)

    def over(self, x: Operand, y: Operand) -> Node | None:
        if self._is_constant(x) and isinstance(y, Node):
            return self.binary("mul", self.unary("reciprocal", y), x)
        return self.binary("div", x, y)

    def clamp(
        self, x: Node, low: Operand | None = None, high: Operand | None = None
    ) -> Node | None:
        result: Node | None = x
        for name, bound in (("maximum", low), ("minimum", high)):
            if bound is not None and result is not None:
                result = self.binary(name, result, bound)
        return result

    def _is_constant(self, x: Operand) -> bool:
        return not isinstance(x, Node) or x in self.constants

    def _row(self, y: Operand, like: Node) -> Node | None:
        """`y` as a second operand: a row like the first, or a constant (1,) or (width,)."""
        if not isinstance(y, Node):
            return self._number(y)
        value = y.meta["val"]
        if y not in self.constants:
            return y if same_shape(value, like.meta["val"]) else None
        is_row = value.shape[-1:] == (value.numel(),) == like.meta["val"].shape[-1:]
        if value.numel() != 1 and not is_row:
            return None
        if value.dim() == 1 and value.dtype == torch.float32:
            return y
        return constant(self.gm, str(y.target), attribute(self.gm, y).float().reshape(-1))

    def _number(self, number: float) -> Node:
        if number not in self.numbers:
            node = constant(self.gm, "number", torch.tensor([float(number)]))
            self.constants.add(node)
            self.numbers[number] = node
        return self.numbers[number]


Rule = Callable[..., Node | None]

UNARY = ("abs", "exp", "neg", "reciprocal", "relu", "sigmoid", "silu", "sqrt", "square", "tanh")


def _unary(name: str) -> Rule:
    return lambda build, x: build.unary(name, x)


def _binary(name: str) -> Rule:
    return lambda build, x, y: build.binary(name, x, y)


RULES: dict[Any, Rule] = {
    **{getattr(aten, name).default: _unary(name) for name in UNARY},
    aten.add.Tensor: _binary("add"),
    aten.mul.Tensor: _binary("mul"),
    aten.maximum.default: _binary("maximum"),
    aten.minimum.default: _binary("minimum"),
    aten.sub.Tensor: Builder.minus,
    aten.rsub.Scalar: lambda build, x, y: build.minus(y, x),
    aten.rsub.Tensor: lambda build, x, y: build.minus(y, x),
    aten.div.Tensor: Builder.over,
    aten.clamp.default: Builder.clamp,
    aten.clamp.Tensor: Builder.clamp,
    aten.clamp_max.default: lambda build, x, high: build.clamp(x, None, high),
    aten.hardtanh.default: lambda build, x, low=-1.0, high=1.0: build.clamp(x, low, high),
    aten.rsqrt.default: lambda build, x: build.unary("reciprocal", build.unary("sqrt", x)),
}


@dataclass(frozen=True)
class LowerPointwise:
    """The last graph pass: detection before it sees ATen's stable forms.

    A call with keyword arguments, with integers, or with operands that are no rows stays as it is.
    """

    name: str = "lower_pointwise"

    def __call__(self, gm: GraphModule) -> GraphModule:
        constants = constant_nodes(gm.graph)
        numbers: dict[float, Node] = {}
        for node in calls(gm, RULES):
            if node in constants or node.kwargs or not _is_float(node):
                continue
            new = RULES[node.target](Builder(gm, node, constants, numbers), *node.args)
            if new is None:
                node.meta["reason"] = "its operands are neither rows of one shape nor constants"
                continue
            replace(node, new)
            note(gm, self.name, new, str(node.target))
        return finish(gm)


def _is_float(node: Node) -> bool:
    values = [source.meta.get("val") for source in node.all_input_nodes]
    floats = all(isinstance(value, Tensor) and value.is_floating_point() for value in values)
    return floats and is_fp32(node)
