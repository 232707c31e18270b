"""What every graph pass uses: inserting typed calls and constants, and cleaning up at the end."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, fx
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.fx import GraphModule, Node

from mmfree_compiler.graph_text import notes
from mmfree_compiler.notes import Note
from mmfree_compiler.ops import OPS

_KEPT = ("stack_trace", "nn_module_stack")


def overload(name: str) -> Any:
    """The torch operator of an op of the table."""
    return OPS[name].overload


def insert(before: Node, target: Any, *args: Any, like: Node | None = None) -> Node:
    """A new call before `before`; its `val` is by the op's shape rule, its source line `like`'s.

    `like` is `before` unless given.
    """
    with before.graph.inserting_before(before):
        node = before.graph.create_node("call_function", target, args, name=_short_name(target))
    like = before if like is None else like
    node.meta = {key: like.meta[key] for key in _KEPT if key in like.meta}
    with fake_mode(before.graph):
        node.meta["val"] = target(*fx.map_arg(args, lambda arg: arg.meta["val"]))
    return node


def constant(gm: GraphModule, name: str, tensor: Tensor) -> Node:
    """A new buffer named after `name`, and the node that reads it, before all other nodes."""
    base = target = name.replace(".", "_")
    suffix = 0
    while hasattr(gm, target):
        suffix += 1
        target = f"{base}_{suffix}"
    gm.register_buffer(target, tensor, persistent=False)
    with gm.graph.inserting_before(next(iter(gm.graph.nodes))):
        node = gm.graph.get_attr(target)
    node.meta["val"] = fake_mode(gm.graph).from_tensor(tensor, static_shapes=True)
    return node


def item(node: Node, index: int) -> Node:
    """Item `index` of a list-valued node: the one that is there, or a new one."""
    following = node.next  # items follow their node directly
    while following.target is operator.getitem and following.args[0] is node:
        if following.args[1] == index:
            return following
        following = following.next
    return insert(following, operator.getitem, node, index, like=node)


def _short_name(target: Any) -> str:
    """ "norm_quant" for torch.ops.mmfree.norm_quant.default."""
    return str(target.__name__).partition(".")[0]


def fake_mode(graph: fx.Graph) -> FakeTensorMode:
    """The fake tensor mode that the graph was traced in."""
    for node in graph.nodes:
        value = node.meta.get("val")
        if isinstance(value, torch._subclasses.FakeTensor):
            return value.fake_mode
    return FakeTensorMode()


def note(gm: GraphModule, pass_name: str, node: Node, text: str) -> None:
    """Record for `explain` what a pass did at `node`."""
    notes(gm).append(Note(pass_name, node.name, text))


def replace(old: Node, new: Node) -> None:
    """Make every user of `old` use `new`, and erase `old`."""
    old.replace_all_uses_with(new)
    old.graph.erase_node(old)


def finish(gm: GraphModule) -> GraphModule:
    """End a pass: erase dead nodes, drop tensors that no node reads, recompile."""
    gm.graph.eliminate_dead_code()
    used = {str(node.target) for node in gm.graph.nodes if node.op == "get_attr"}
    for name, _ in [*gm.named_parameters(remove_duplicate=False), *gm.named_buffers()]:
        if name not in used:
            _delete(gm, name)
    gm.delete_all_unused_submodules()
    gm.recompile()
    return gm


def _delete(gm: GraphModule, name: str) -> None:
    path, _, leaf = name.rpartition(".")
    delattr(gm.get_submodule(path), leaf)


def same_shape(x: Any, y: Any) -> bool:
    """Whether two values have equal shapes for all dynamic sizes."""
    known = torch.fx.experimental.symbolic_shapes.statically_known_true
    return x.dim() == y.dim() and all(known(a == b) for a, b in zip(x.shape, y.shape, strict=True))


def is_fp32(node: Node) -> bool:
    """Whether a node computes fp32 rows, as every op of the table does."""
    value = node.meta.get("val")
    return isinstance(value, Tensor) and value.dtype == torch.float32


def are_rows(*nodes: Node) -> bool:
    """Whether nodes compute fp32 rows of one shape: ops do not repeat rows of one for another."""
    first = nodes[0].meta["val"]
    return all(is_fp32(node) and same_shape(node.meta["val"], first) for node in nodes)


def calls(gm: GraphModule, targets: Iterable[Any]) -> list[Node]:
    """The graph's calls of any of `targets`, in order."""
    wanted = set(targets)
    return [n for n in gm.graph.nodes if n.op == "call_function" and n.target in wanted]
