"""Which nodes a target cannot run, all at once, each with its source line."""

from __future__ import annotations

import operator
import re
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

import torch
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
_TORCH = Path(torch.__file__).parent
_FRAME = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in \S+\n\s*(?P<code>.*)')


@dataclass(frozen=True)
class LeftOver:
    """A node that no lowering takes: why, the module it is in, and the line that made it."""

    node: Node
    reason: str
    module: str
    source: str

    def __str__(self) -> str:
        where = f" in {self.module}" if self.module else ""
        return f"{self.node.target} ({self.reason}){where} at {self.source or 'an unknown line'}"


def left_over(gm: GraphModule, names: Collection[str]) -> list[LeftOver]:
    """The calls that are no op of `names` (rows of the op table), no item, no size and no view."""
    return [
        LeftOver(node, _reason(node), _module(node), source_line(node))
        for node in gm.graph.nodes
        if node.op in ("call_function", "call_module") and not _is_lowered(node, names)
    ]


def check_supported(gm: GraphModule, names: Collection[str]) -> None:
    """Raise UnsupportedError that lists every left-over call with its reason and source line."""
    found = left_over(gm, names)
    if found:
        raise UnsupportedError(
            f"{len(found)} operation{'s' if len(found) > 1 else ''}",
            "the target cannot run",
            'Write with supported ops, or pass fallback="eager" to run in torch:\n'
            + "\n".join(f"  {call}" for call in found),
        )


def source_line(node: Node) -> str:
    """`file:line: code` of the innermost recorded frame outside of torch, or nothing."""
    frames = [frame.groupdict() for frame in _FRAME.finditer(node.stack_trace or "")]
    own = [frame for frame in frames if not Path(frame["file"]).is_relative_to(_TORCH)]
    return "{file}:{line}: {code}".format(**(own or frames)[-1]) if frames else ""


def _module(node: Node) -> str:
    """The path and class of the module whose forward made a node, "layers.0 (GELU)"."""
    stack = list((node.meta.get("nn_module_stack") or {}).values())
    path, kind = stack[-1] if stack else ("", "")
    return f"{path} ({str(kind).rpartition('.')[2]})" if path else ""


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
