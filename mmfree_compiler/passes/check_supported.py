"""Which nodes a target cannot run, all at once, each with its source line."""

from __future__ import annotations

import operator
import re
from collections.abc import Collection
from dataclasses import dataclass

from torch import Tensor
from torch.fx import GraphModule, Node

from mmfree_compiler.errors import UnsupportedError
from mmfree_compiler.ops import OPS
from mmfree_compiler.passes.pattern import aten
from mmfree_compiler.passes.rewrite import is_fp32

# They may only change leading dimensions: a row a token stays what it is, and in order.
VIEWS = {
    aten.reshape.default,
    aten.squeeze.dim,
    aten.unsqueeze.default,
    aten.view.default,
}
# A compound op that is still there was not taken apart: no target has it.
_NAMES = {op.overload: op.name for op in OPS.values() if op.kind != "compound"}
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in \S+\n\s*(?P<code>.*)')


@dataclass(frozen=True)
class LeftOver:
    """A node that no lowering takes: why, and the user's line that made it."""

    node: Node
    reason: str
    source: str

    def __str__(self) -> str:
        return f"{self.node.target} ({self.reason}) at {self.source or 'an unknown line'}"


def left_over(gm: GraphModule, names: Collection[str]) -> list[LeftOver]:
    """The calls that are no op of `names` (rows of the op table), no item, no size and no view."""
    return [
        LeftOver(node, _reason(node), source_line(node))
        for node in gm.graph.nodes
        if node.op in ("call_function", "call_module") and not _is_lowered(node, names)
    ]


def check_supported(gm: GraphModule, names: Collection[str]) -> None:
    """Raise UnsupportedError that lists every left-over call with its reason and source line."""
    found = left_over(gm, names)
    if found:
        raise UnsupportedError(
            f"{len(found)} operation{'s' if len(found) > 1 else ''} that the target cannot run",
            "".join(f"\n  {call}" for call in found),
            '\nWrite them with supported ops, or pass fallback="eager" to run them in torch',
        )


def source_line(node: Node) -> str:
    """`file:line: code` of the innermost frame that the trace recorded, or nothing."""
    frames = list(_FRAME.finditer(node.stack_trace or ""))
    return "{file}:{line}: {code}".format(**frames[-1].groupdict()) if frames else ""


def _is_lowered(node: Node, names: Collection[str]) -> bool:
    if node.target is operator.getitem:
        return True  # with the call whose item it is
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
