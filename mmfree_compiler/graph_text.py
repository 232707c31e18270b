"""The notes that passes leave on a graph, and a graph as text."""

from __future__ import annotations

from operator import getitem
from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Node

from mmfree_compiler.notes import Note


def notes(gm: GraphModule) -> list[Note]:
    """The notes of every pass that ran on `gm`, in order; append to the list to add one."""
    found: list[Note] = gm.meta.setdefault("notes", [])
    return found


def listing(gm: GraphModule) -> str:
    """The graph as text for MMFREE_DEBUG=2: one line per call, constants by name."""
    return "\n".join(_line(node) for node in gm.graph.nodes if node.op != "get_attr")


def _line(node: Node) -> str:
    arguments = ", ".join(_written(argument) for argument in node.args)
    if node.op == "placeholder":
        return f"{node.name}: {_type(node.meta.get('val'))}"
    if node.op == "output":
        return f"return {arguments}"
    target = "getitem" if node.target is getitem else str(node.target).removesuffix(".default")
    return f"{node.name} = {target}({arguments}): {_type(node.meta.get('val'))}"


def _written(argument: Any) -> str:
    if isinstance(argument, Node):
        return str(argument.target) if argument.op == "get_attr" else argument.name
    if isinstance(argument, list | tuple):
        return f"[{', '.join(_written(item) for item in argument)}]"
    return str(argument)


def _type(value: Any) -> str:
    """A type as text, such as "float32[*, *, 32]"; dynamic sizes are stars."""
    if isinstance(value, list | tuple):
        return ", ".join(_type(item) for item in value)
    if not isinstance(value, Tensor):
        return type(value).__name__
    sizes = ", ".join(str(size) if isinstance(size, int) else "*" for size in value.shape)
    return f"{str(value.dtype).removeprefix('torch.')}[{sizes}]"
