"""Remaining pointwise ATen ops -> ops of the table, by the spellings that each op declares."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from mmfree_compiler.ops import OPS, Operand
from mmfree_compiler.passes.constants import attribute, constant_nodes
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

_OP_OF = {spelling: op for op in OPS.values() for spelling in op.aten}


@dataclass
class GraphBuilder:
    """The Builder (ops/spelling.py) of a rule of `op`: makes mmfree calls before `node`.

    Numbers become constants of one element, each made once for the graph.
    """

    op: str
    gm: GraphModule
    node: Node
    constants: set[Node]
    numbers: dict[float, Node]

    def __call__(self, name: str, *operands: Operand) -> Node | None:
        first, *others = operands
        if not isinstance(first, Node) or self.is_constant(first):
            return None
        rows = [self._row(other, first) for other in others]
        if len(operands) != len(OPS[name].parameters):
            return None
        return None if None in rows else insert(self.node, overload(name), first, *rows)

    def is_constant(self, x: Operand) -> bool:
        return not isinstance(x, Node) or x in self.constants

    def _row(self, y: Operand, like: Node) -> Node | None:
        """`y` as an operand after the first: a row `like` it, or a constant (1,) or (width,)."""
        if not isinstance(y, Node):
            return None if y is None else self._number(y)
        value = y.meta["val"]
        if y not in self.constants:
            return y if same_shape(value, like.meta["val"]) else None
        is_row = value.shape[-1:] == (value.numel(),) == like.meta["val"].shape[-1:]
        if value.numel() != 1 and not is_row:
            return None
        if value.dim() == 1 and value.dtype == torch.float32:
            return y
        row = constant(self.gm, str(y.target), attribute(self.gm, y).float().reshape(-1))
        row.meta["parameters"] = y.meta.get("parameters") or str(y.target)
        return row

    def _number(self, number: float) -> Node:
        if number not in self.numbers:
            node = constant(self.gm, "number", torch.tensor([float(number)]))
            node.meta["number"] = True
            self.constants.add(node)
            self.numbers[number] = node
        return self.numbers[number]


@dataclass(frozen=True)
class LowerPointwise:
    """Rewrite the pointwise ATen ops that are left to ops of the table.

    The last graph pass, since the passes before it match ATen's ops. A call with keyword arguments,
    with integers, or with operands that are not rows stays as it is.
    """

    name: ClassVar[str] = "lower_pointwise"

    def __call__(self, gm: GraphModule) -> GraphModule:
        constants = constant_nodes(gm.graph)
        numbers: dict[float, Node] = {}
        for node in calls(gm, _OP_OF):
            if node in constants or node.kwargs or not _is_float(node):
                continue
            op = _OP_OF[node.target]
            build = GraphBuilder(op.name, gm, node, constants, numbers)
            new = op.aten[node.target](build, *node.args)
            if new is None:
                node.meta["reason"] = (
                    "its operands are not those of an op: rows of one shape and constants"
                )
                continue
            replace(node, new)
            note(gm, self.name, new, str(node.target))
        return finish(gm)


def _is_float(node: Node) -> bool:
    values = [source.meta.get("val") for source in node.all_input_nodes]
    floats = all(isinstance(value, Tensor) and value.is_floating_point() for value in values)
    return floats and is_fp32(node)
