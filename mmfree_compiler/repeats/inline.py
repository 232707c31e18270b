"""Replacing the marks of a graph by copies of the nodes that were traced once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from torch import Tensor, fx, nn
from torch.fx import GraphModule, Node

from mmfree_compiler.repeats.equal import Unshared
from mmfree_compiler.repeats.marks import ENTER, LEAVE, MARKS, REPEAT
from mmfree_compiler.repeats.sharing import Sharing


@dataclass(frozen=True)
class Body:
    """The nodes of a leader, the tensors that go in, and those that come out."""

    inputs: dict[Node, int]  # item of ENTER -> its index
    nodes: tuple[Node, ...]
    outputs: tuple[Node, ...]


def inline(gm: GraphModule, sharing: Sharing) -> GraphModule:
    """Replace the marks by the nodes they stand for. Raises Unshared if copies would be inexact."""
    if any(_is_marked(part) for part in gm.modules() if part is not gm):
        raise Unshared("a repeated module is called within a part of the graph")
    bodies, readers = _bodies(gm), _readers(gm, sharing.root)
    paths = {module: path for path, module in sharing.root.named_modules()}
    for node in gm.graph.find_nodes(op="call_function", target=REPEAT):
        inputs, number, index = node.args
        leader, other = sharing.leaders[number], sharing.repeats[index]
        body = bodies[number]
        new = _other_tensors(leader, other, readers)
        for item, k in body.inputs.items():
            new[item] = inputs[k]
        _replace_items(node, _copy(body, node, new, (paths[leader], paths[other])))
    for mark in (ENTER, LEAVE):
        for node in gm.graph.find_nodes(op="call_function", target=mark):
            _replace_items(node, node.args[0])
    _rename(gm.graph)
    gm.recompile()
    return gm


def _is_marked(part: nn.Module) -> bool:
    nodes = part.graph.nodes if isinstance(part, GraphModule) else ()
    return any(node.target in MARKS for node in nodes)


def _rename(graph: fx.Graph) -> None:
    """Name calls in their order, as tracing does, so that names do not depend on copies."""
    graph._graph_namespace = fx.graph._Namespace()
    for node in graph.nodes:
        called = node.op == "call_function"
        stem = re.sub(r"_\d+$", "", node.name) if called else node.name
        node.name = graph._graph_namespace.create_name(stem, None)


def _bodies(gm: GraphModule) -> dict[int, Body]:
    """Leaders' bodies by number. Nodes are in call order, so a body is between its marks."""
    bodies: dict[int, Body] = {}
    inside: list[Node] | None = None
    for node in gm.graph.nodes:
        if inside is not None and node.target in (ENTER, REPEAT):
            raise Unshared("a repeated module calls another")
        if node.target is ENTER:
            inside = [node]
        elif node.target is LEAVE and inside is not None:
            bodies[node.args[1]] = _body(inside[0], inside[1:], node)
            inside = None
        elif inside is not None:
            inside.append(node)
    return bodies


def _body(enter: Node, nodes: list[Node], leave: Node) -> Body:
    items: Any = {node: node.args[1] for node in enter.users}
    results: Any = leave.args[0]
    return Body(items, tuple(n for n in nodes if n not in items), tuple(results))


def _readers(gm: GraphModule, root: nn.Module) -> dict[int, Node]:
    """The id of each parameter and buffer -> the node that reads it."""
    nodes = {str(node.target): node for node in gm.graph.find_nodes(op="get_attr")}
    tensors = chain(
        root.named_parameters(remove_duplicate=False), root.named_buffers(remove_duplicate=False)
    )
    return {id(tensor): nodes[name] for name, tensor in tensors if name in nodes}


def _tensors(module: nn.Module) -> Iterator[Tensor]:
    """Parameters and buffers in an order that equal modules share."""
    for part in (module.named_parameters, module.named_buffers):
        yield from (tensor for _, tensor in part(remove_duplicate=False))


def _other_tensors(
    leader: nn.Module, other: nn.Module, readers: dict[int, Node]
) -> dict[Node, Node]:
    """The node that reads a tensor of the leader -> the one that reads the other's tensor."""
    pairs = zip(_tensors(leader), _tensors(other), strict=True)
    return {readers[id(a)]: readers[id(b)] for a, b in pairs if id(a) in readers}


def _copy(body: Body, repeat: Node, new: dict[Node, Node], paths: tuple[str, str]) -> list[Node]:
    """Copy the leader's nodes to before `repeat`, on `new` operands; returns the results."""
    for node in body.nodes:
        with repeat.graph.inserting_before(repeat):
            copy = repeat.graph.node_copy(node, lambda old: new.get(old, old))
        copy.meta["nn_module_stack"] = _stack(node, repeat, *paths)
        new[node] = copy
    return [new.get(node, node) for node in body.outputs]


def _stack(node: Node, repeat: Node, leader: str, other: str) -> dict[str, Any]:
    """The modules that a copy comes from: the repeated one, then its parts around the node."""
    inner = {
        key: (other + path[len(leader) :], kind)
        for key, (path, kind) in node.meta.get("nn_module_stack", {}).items()
        if path.startswith(f"{leader}.")
    }
    return {**repeat.meta["nn_module_stack"], **inner}


def _replace_items(mark: Node, values: Any) -> None:
    """Make the users of a mark's items use `values`, and erase the mark."""
    for user in list(mark.users):
        user.replace_all_uses_with(values[user.args[1]])
        user.graph.erase_node(user)
    mark.graph.erase_node(mark)
