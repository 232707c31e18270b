"""Marks give way to nodes: copies of what was traced once."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from typing import Any

from torch import Tensor, fx, nn
from torch.fx import GraphModule, Node

from mmfree_compiler.repeats.equal import Unshared
from mmfree_compiler.repeats.marks import ENTER, LEAVE, REPEAT
from mmfree_compiler.repeats.sharing import Sharing


@dataclass(frozen=True)
class Body:
    """The nodes of a leader, the tensors that came in, and those that went out."""

    inputs: dict[Node, int]  # an item of ENTER -> which of its operands it is
    nodes: tuple[Node, ...]
    outputs: tuple[Node, ...]


def inline(gm: GraphModule, sharing: Sharing) -> GraphModule:
    """Replace the marks by what they stand for. Raises Unshared when copies would not be exact."""
    if sharing.changed:
        raise Unshared("a forward changes its module")
    bodies, held = _bodies(gm), _held_by(gm, sharing.root)
    paths = {module: path for path, module in sharing.root.named_modules()}
    for node in gm.graph.find_nodes(op="call_function", target=REPEAT):
        inputs, number, index = node.args
        leader, other = sharing.leaders[number], sharing.repeats[index]
        body, new = bodies[number], _swaps(leader, other, held)
        new |= {item: inputs[k] for item, k in body.inputs.items()}
        _forward(node, _copy(body, node, new, (paths[leader], paths[other])))
    for mark in (ENTER, LEAVE):
        for node in gm.graph.find_nodes(op="call_function", target=mark):
            _forward(node, node.args[0])
    _number(gm.graph)
    gm.recompile()
    return gm


def _number(graph: fx.Graph) -> None:
    """Name calls as tracing does, in their order: names do not tell what was copied."""
    graph._graph_namespace = fx.graph._Namespace()
    for node in graph.nodes:
        called = node.op == "call_function"
        stem = re.sub(r"_\d+$", "", node.name) if called else node.name
        node.name = graph._graph_namespace.create_name(stem, None)


def _bodies(gm: GraphModule) -> dict[int, Body]:
    """Leaders by number. Nodes stand in the order of the calls, a body's between its marks."""
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


def _held_by(gm: GraphModule, root: nn.Module) -> dict[int, Node]:
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


def _swaps(leader: nn.Module, other: nn.Module, held: dict[int, Node]) -> dict[Node, Node]:
    pairs = zip(_tensors(leader), _tensors(other), strict=True)
    return {held[id(a)]: held[id(b)] for a, b in pairs if id(a) in held}


def _copy(body: Body, repeat: Node, new: dict[Node, Node], paths: tuple[str, str]) -> list[Node]:
    """Copies of the leader's nodes before `repeat`, on `new` operands; returns the results."""
    for node in body.nodes:
        with repeat.graph.inserting_before(repeat):
            copy = repeat.graph.node_copy(node, lambda old: new.get(old, old))
        copy.meta["nn_module_stack"] = _stack(node, repeat, *paths)
        new[node] = copy
    return [new.get(node, node) for node in body.outputs]


def _stack(node: Node, repeat: Node, leader: str, other: str) -> dict[str, Any]:
    """Where a copy comes from: the repeated module, then the parts of it that the node is in."""
    inner = {
        key: (other + path[len(leader) :], kind)
        for key, (path, kind) in node.meta.get("nn_module_stack", {}).items()
        if path.startswith(f"{leader}.")
    }
    return {**repeat.meta["nn_module_stack"], **inner}


def _forward(mark: Node, values: Any) -> None:
    """Let the users of a mark's items use `values`."""
    for user in list(mark.users):
        user.replace_all_uses_with(values[user.args[1]])
        user.graph.erase_node(user)
    mark.graph.erase_node(mark)
