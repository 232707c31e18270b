"""Slices of a product become products with slices of its weight."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch.fx import GraphModule, Node

from mmfree_compiler.passes.constants import attribute
from mmfree_compiler.passes.pattern import aten
from mmfree_compiler.passes.rewrite import (
    calls,
    constant,
    finish,
    insert,
    note,
    overload,
    replace,
)


@dataclass(frozen=True)
class SplitLinear:
    """Make a product of each slice of one, such as `gate, up = chunk(linear(x), 2)`.

    Their codes are views of one weight.
    """

    name: ClassVar[str] = "split_linear"

    def __call__(self, gm: GraphModule) -> GraphModule:
        for node in calls(gm, [overload("ternary_linear")]):
            parts = [user for user in node.users if _is_part(user)]
            if len(parts) < len(node.users):
                continue  # something reads the whole product
            for part in parts:
                new = _linear_of_rows(gm, node, part)
                replace(part, new)
                note(gm, self.name, new, f"rows {part.args[2]} to {part.args[3]} of {node.name}")
        return finish(gm)


def _is_part(user: Node) -> bool:
    return user.target is aten.slice.Tensor and user.args[1:2] == (-1,) and len(user.args) == 4


def _linear_of_rows(gm: GraphModule, node: Node, part: Node) -> Node:
    codes, scale, weight, weight_scale, bias = node.args
    start, end = part.args[2:4]
    assert isinstance(start, int)
    assert isinstance(end, int)

    def rows(source: object) -> Node | None:
        if not isinstance(source, Node):
            return None
        return constant(gm, f"{source.target}_{start}", attribute(gm, source)[start:end])

    linear = overload("ternary_linear")
    return insert(node, linear, codes, scale, rows(weight), weight_scale, rows(bias), like=part)
