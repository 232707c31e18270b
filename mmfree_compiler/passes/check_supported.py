"""Finding all nodes that a target cannot run, each with its source line."""

from __future__ import annotations

import operator
from collections.abc import Collection
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.fx import GraphModule, Node

from mmfree_compiler.errors import UnsupportedError
from mmfree_compiler.ops import OPS
from mmfree_compiler.origin import made_by, placed
from mmfree_compiler.passes.constants import attribute
from mmfree_compiler.passes.pattern import aten
from mmfree_compiler.passes.rewrite import is_fp32
from mmfree_compiler.wording import counted, few

# These may change leading dimensions only: the rows, one per token, keep their values and order.
VIEWS = {
    aten.reshape.default,
    aten.squeeze.dim,
    aten.unsqueeze.default,
    aten.view.default,
}
# No target has compound ops: passes split them.
_NAMES = {op.overload: op.name for op in OPS.values() if op.kind != "compound"}


@dataclass(frozen=True)
class LeftOver:
    """A node that cannot be lowered, and why."""

    node: Node
    reason: str

    def __str__(self) -> str:
        return f"{self.node.target} ({self.reason}) {placed(*made_by(self.node))}"


def left_over(gm: GraphModule, names: Collection[str]) -> list[LeftOver]:
    """The calls that are neither ops in `names` (of the op table) nor items, sizes or views."""
    return [
        LeftOver(node, _reason(node))
        for node in gm.graph.nodes
        if node.op in ("call_function", "call_module") and not _is_lowered(node, names)
    ]


def _check_finite(gm: GraphModule) -> None:
    """Raise UnsupportedError on NaN or infinite parameters; a number in code may be infinite."""
    parameters = [n for n in gm.graph.find_nodes(op="get_attr") if not n.meta.get("number")]
    bad = [node for node in parameters if not _is_finite(attribute(gm, node))]
    names = list(dict.fromkeys(str(node.meta.get("parameters") or node.target) for node in bad))
    if names:
        holds = "holds" if len(names) == 1 else "hold"
        hint = "Load or train the weights again"
        raise UnsupportedError(few(names, 20), f"{holds} NaN or infinite values", hint)


def _is_finite(x: Tensor) -> bool:
    if not x.is_floating_point() or not x.numel():
        return True
    return all(bool(extreme.isfinite()) for extreme in torch.aminmax(x))  # NaN is both of them


def check_supported(gm: GraphModule, names: Collection[str]) -> None:
    """Raise an UnsupportedError that lists every left-over call, its reason and source line.

    Parameters with NaN or infinite values come first: they are listed alone.
    """
    _check_finite(gm)
    found = left_over(gm, names)
    if found:
        listed = "\n".join(f"  {call}" for call in found)
        raise UnsupportedError(
            counted(len(found), "operation"),
            f"not supported by the target:\n{listed}",
            "Write them in supported ops",
        )


def _is_lowered(node: Node, names: Collection[str]) -> bool:
    if node.target is operator.getitem:
        return True  # lowered with the call that made the list
    if node.target in VIEWS:
        return _keeps_rows(node)
    if not isinstance(node.meta.get("val"), Tensor | list | tuple):
        return True  # a size
    return _NAMES.get(node.target) in names


def _keeps_rows(node: Node) -> bool:
    source = node.args[0]
    assert isinstance(source, Node)
    before, after = source.meta["val"], node.meta["val"]
    return bool(before.dim() and after.dim() and before.shape[-1] == after.shape[-1])


def _reason(node: Node) -> str:
    value = node.meta.get("val")
    if isinstance(value, Tensor) and value.is_floating_point() and not is_fp32(node):
        return f"it computes in {value.dtype}, not in fp32: call .float() on the module"
    return str(node.meta.get("reason", "no lowering"))
