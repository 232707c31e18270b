"""What each pass did, node by node: passes leave notes on the graph, these functions print them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import groupby
from operator import getitem
from typing import Any

from torch import Tensor
from torch.fx import GraphModule, Node


@dataclass(frozen=True)
class Note:
    """One thing that a pass did: `node` names the graph node that it left behind."""

    pass_name: str
    node: str
    text: str


def notes(gm: GraphModule) -> list[Note]:
    """The notes of every pass that ran on `gm`, in order; append to it to add one."""
    found: list[Note] = gm.meta.setdefault("notes", [])
    return found


def table(found: Iterable[Note]) -> list[tuple[str, str, str]]:
    """Rows (pass, node, text), ready for any table printer."""
    return [(note.pass_name, note.node, note.text) for note in found]


def text(found: Iterable[Note]) -> str:
    """The notes as indented text, a paragraph a pass."""
    lines: list[str] = []
    for name, group in groupby(found, key=lambda note: note.pass_name):
        members = list(group)
        width = max(len(note.node) for note in members)
        lines.append(f"{name} ({len(members)})")
        lines += [f"  {note.node:<{width}}  {note.text}" for note in members]
    return "\n".join(lines)


def listing(gm: GraphModule) -> str:
    """The graph as text, a line a call, constants by their name: what MMFREE_DEBUG=2 prints."""
    lines = []
    for node in gm.graph.nodes:
        arguments = ", ".join(_written(argument) for argument in node.args)
        if node.op == "placeholder":
            lines.append(f"{node.name}: {_type(node.meta.get('val'))}")
        elif node.op == "output":
            lines.append(f"return {arguments}")
        elif node.op != "get_attr":
            name = getattr(node.target, "__name__", "") if node.target is getitem else node.target
            name = str(name).removesuffix(".default")
            lines.append(f"{node.name} = {name}({arguments}): {_type(node.meta.get('val'))}")
    return "\n".join(lines)


def _written(argument: Any) -> str:
    if isinstance(argument, Node):
        return str(argument.target) if argument.op == "get_attr" else argument.name
    if isinstance(argument, list | tuple):
        return f"[{', '.join(_written(item) for item in argument)}]"
    return str(argument)


def _type(value: Any) -> str:
    """ "float32[*, *, 32]": sizes that are free are stars."""
    if isinstance(value, list | tuple):
        return ", ".join(_type(item) for item in value)
    if not isinstance(value, Tensor):
        return type(value).__name__
    sizes = ", ".join(str(size) if isinstance(size, int) else "*" for size in value.shape)
    return f"{str(value.dtype).removeprefix('torch.')}[{sizes}]"


def dot(gm: GraphModule) -> str:
    """The graph as graphviz text: `dot -Tsvg` draws it. Constants are boxes without a border."""
    lines = ["digraph mmfree {", "  node [shape=box, style=rounded];"]
    for node in gm.graph.nodes:
        label = str(node.target) if node.op in ("call_function", "get_attr") else node.name
        shape = ", shape=plaintext" if node.op == "get_attr" else ""
        lines.append(f'  {node.name} [label="{label}"{shape}];')
        lines += [f"  {source.name} -> {node.name};" for source in node.all_input_nodes]
    return "\n".join([*lines, "}"])
