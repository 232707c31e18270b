"""Subgraphs that depend on parameters only: which they are, and what they evaluate to."""

from __future__ import annotations

import operator
from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import chain
from typing import Any

import torch
from torch import Tensor, fx
from torch.fx import GraphModule, Node

from mmfree_compiler.passes.arithmetic import ELEMENTWISE, compute
from mmfree_compiler.passes.sums import BLOCK, REDUCTIONS, is_reduction


def constant_nodes(graph: fx.Graph) -> set[Node]:
    """The nodes that no input of the graph reaches."""
    found: set[Node] = set()
    for node in graph.nodes:
        if node.op == "get_attr" or (_is_pure(node) and found.issuperset(node.all_input_nodes)):
            found.add(node)
    return found


def _is_pure(node: Node) -> bool:
    """Whether a node is a call whose result depends on its operands only."""
    is_random = torch.Tag.nondeterministic_seeded in getattr(node.target, "tags", ())
    return node.op == "call_function" and not node.is_impure() and not is_random


def attribute(gm: GraphModule, node: Node) -> Tensor:
    """The tensor that a `get_attr` node reads."""
    tensor: Tensor = operator.attrgetter(str(node.target))(gm)
    return tensor.detach()


def identity(node: Node, known: dict[Node, str]) -> str:
    """A key that is equal for nodes that are the same expression of the same tensors."""
    if node not in known:
        arguments = fx.map_arg((node.args, node.kwargs), lambda arg: identity(arg, known))
        known[node] = str((node.op, str(node.target), arguments))
    return known[node]


def ancestors(node: Node) -> list[Node]:
    """`node` and all that it is computed from, in the graph's order."""
    found: set[Node] = set()
    queue = [node]
    while queue:
        current = queue.pop()
        if current not in found:
            found.add(current)
            queue.extend(current.all_input_nodes)
    return sorted(found)


def evaluate(gm: GraphModule, node: Node) -> Any:
    """The value of a constant node."""
    return evaluate_all(gm, [node])[0]


def evaluate_all(gm: GraphModule, nodes: Sequence[Node]) -> list[Any]:
    """The values of constant nodes; temporaries are freed as soon as nothing needs them."""
    order = sorted(set(chain.from_iterable(ancestors(node) for node in nodes)))
    last_user = {source: user for user in order for source in user.all_input_nodes}
    kept = set(nodes)
    values: dict[Node, Any] = {}
    for current in order:
        values[current] = run(gm, current, values)
        for source in current.all_input_nodes:
            if last_user[source] is current and source not in kept:
                del values[source]
    return [values[node] for node in nodes]


def run(gm: GraphModule, node: Node, values: dict[Node, Any]) -> Any:
    """The value of one node on concrete values."""
    if node.op == "get_attr":
        return attribute(gm, node)
    args, kwargs = fx.map_arg((node.args, node.kwargs), values.__getitem__)
    return compute(node.target, args, kwargs)


def evaluate_rows(gm: GraphModule, node: Node) -> Iterator[tuple[slice, Tensor]]:
    """The value of a constant matrix, a block of rows at a time, with few temporaries.

    Yields (rows, block (len(rows), K)). Scalars of the matrix, such as its mean, are computed
    first, by blocks too. Expressions that mix rows come as one block.
    """
    order = ancestors(node)
    rows = _row_nodes(node, order)
    if node not in rows:
        whole = evaluate(gm, node)
        yield slice(0, whole.shape[0]), whole
        return
    values: dict[Node, Any] = {}
    for current in order:
        if current not in rows:
            values[current] = _scalar(gm, current, rows, values)
    yield from _blocks(gm, node, rows, values)


def _scalar(gm: GraphModule, node: Node, rows: set[Node], values: dict[Node, Any]) -> Any:
    """The value of a node outside of `rows`: a reduction of a matrix, or computed from scalars."""
    if rows.isdisjoint(node.all_input_nodes):
        return run(gm, node, values)
    matrix = node.all_input_nodes[0]
    if node.args == (matrix,) and is_reduction(node.target, matrix.meta["val"], node.kwargs):
        blocks = partial(_values, gm, matrix, rows, values)
        return REDUCTIONS[node.target](blocks)
    return evaluate(gm, node)


def _values(
    gm: GraphModule, node: Node, rows: set[Node], values: dict[Node, Any]
) -> Iterator[Tensor]:
    return (block for _, block in _blocks(gm, node, rows, values))


def _blocks(
    gm: GraphModule, node: Node, rows: set[Node], values: dict[Node, Any]
) -> Iterator[tuple[slice, Tensor]]:
    """The value of `node`, one of `rows`, by blocks; `values` holds the scalars that it needs."""
    body = [current for current in ancestors(node) if current in rows]
    height, width = node.meta["val"].shape
    step = max(1, BLOCK // width)
    for start in range(0, height, step):
        block = slice(start, min(start + step, height))
        for current in body:
            if current.op == "get_attr":
                values[current] = attribute(gm, current)[block]
            else:
                values[current] = run(gm, current, values)
        yield block, values[node]


def _row_nodes(node: Node, order: Iterable[Node]) -> set[Node]:
    """The nodes of `node`'s shape that are computed from matrices of that shape and scalars."""
    shape = node.meta["val"].shape
    rows: set[Node] = set()
    for current in order:
        value = current.meta["val"]
        if not isinstance(value, Tensor) or value.shape != shape:
            continue
        if current.op == "get_attr" or _is_elementwise(current, rows):
            rows.add(current)
    return rows


def _is_elementwise(node: Node, rows: set[Node]) -> bool:
    """Whether each row of the result depends on the same row of matrices of `rows` only."""
    if node.target not in ELEMENTWISE:
        return False
    operands = [source for source in node.all_input_nodes if source.meta["val"].numel() != 1]
    return rows.issuperset(operands)
