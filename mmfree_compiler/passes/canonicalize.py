"""Bring what export and models write in several ways into one form."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite
from typing import Any, ClassVar

from torch import Tensor
from torch.fx import GraphModule, Node

from mmfree_compiler.passes.constants import attribute, constant_nodes
from mmfree_compiler.passes.pattern import COMMUTATIVE, aten
from mmfree_compiler.passes.rewrite import calls, finish, note, replace, same_shape
from mmfree_compiler.passes.spellings import RULES

# Operation -> its canonical name; the arguments stay the same.
ALIASES = {
    aten.absolute.default: aten.abs.default,
    aten.add.Scalar: aten.add.Tensor,
    aten.clip.default: aten.clamp.default,
    aten.clamp_min.default: aten.clamp.default,
    aten.div.Scalar: aten.div.Tensor,
    aten.divide.Tensor: aten.div.Tensor,
    aten.mul.Scalar: aten.mul.Tensor,
    aten.multiply.Tensor: aten.mul.Tensor,
    aten.negative.default: aten.neg.default,
    aten.special_expit.default: aten.sigmoid.default,
    aten.sub.Scalar: aten.sub.Tensor,
    aten.subtract.Tensor: aten.sub.Tensor,
    aten.true_divide.Tensor: aten.div.Tensor,
}

ASSERTIONS = {
    aten._assert_async.msg,
    aten._assert_scalar.default,
    aten._assert_tensor_metadata.default,
    aten.sym_constrain_range_for_size.default,
    aten.sym_constrain_range.default,
}


@dataclass(frozen=True)
class Canonicalize:
    """Drop what computes nothing, and write each operation in one way; the values stay equal."""

    name: ClassVar[str] = "canonicalize"

    def __call__(self, gm: GraphModule) -> GraphModule:
        for node in calls(gm, ASSERTIONS):
            gm.graph.erase_node(node)
        constants = constant_nodes(gm.graph)
        for node in list(gm.graph.nodes):
            if node.op == "call_function":
                node.target = ALIASES.get(node.target, node.target)
                _inline_scalars(gm, node)
                self._apply_first_rule(gm, node, constants)
        return finish(gm)

    def _apply_first_rule(self, gm: GraphModule, node: Node, constants: set[Node]) -> None:
        for rule, text in RULES.items():
            new = rule(node, constants)
            if new is not None and _alike(new, node):
                if text:
                    note(gm, self.name, new, text)
                replace(node, new)
                return


def _alike(new: Node, old: Node) -> bool:
    """Whether the values have the same type: a rule looks at operations, not at what they do to it.

    What a rule inserted in vain is dropped at the end of the pass.
    """
    a, b = new.meta["val"], old.meta["val"]
    return bool(a.dtype == b.dtype and same_shape(a, b))


_TAKES_NUMBERS = {aten.add.Tensor, aten.sub.Tensor, aten.mul.Tensor, aten.div.Tensor}


def _inline_scalars(gm: GraphModule, node: Node) -> None:
    """Numbers that are written as 0-dimensional tensors become arguments."""
    if node.target not in _TAKES_NUMBERS or len(node.args) != 2:
        return
    left, right = node.args
    if node.target in COMMUTATIVE and _is_number(left):
        left, right = right, left
    if isinstance(left, Node) and _is_number(right):
        assert isinstance(right, Node)
        number = attribute(gm, right).item()
        if isfinite(number):  # else the parameter is refused by its name
            node.args = (left, number)


def _is_number(value: Any) -> bool:
    return (
        isinstance(value, Node)
        and value.op == "get_attr"
        and isinstance(value.meta["val"], Tensor)
        and value.meta["val"].dim() == 0
    )
