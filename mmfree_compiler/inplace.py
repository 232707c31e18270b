"""In-place operations of an exported program, and the graph without them."""

from __future__ import annotations

import operator
from functools import cache
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.fx import GraphModule, Node

from mmfree_compiler.repeats import MARKS


def functional(program: ExportedProgram) -> GraphModule:
    """The program's graph without in-place operations.

    Writes into fresh values (`x.abs().amax(-1).clamp_(min=1e-5)`) are replaced in one sweep. Only
    graphs that write through views or casts go through export's own functionalization, which takes
    several times as long as the export.
    """
    if writes_through(program):
        before = program.graph
        program = program.run_decompositions({})
        _give_lines(program.graph, before)
    gm = program.module(check_guards=False)
    assert isinstance(gm, GraphModule)
    written: dict[Node, Node] = {}  # value -> the call that wrote it last

    def latest(node: Node) -> Node:
        while node in written:
            node = written[node]
        return node

    for node in gm.graph.nodes:
        node.args, node.kwargs = fx.map_arg((node.args, node.kwargs), latest)
        pure = _functional(node.target)
        if pure is not None:
            written[node.args[0]] = node
            node.target = pure
    gm.recompile()
    return gm


def _give_lines(graph: fx.Graph, before: fx.Graph) -> None:
    """Lines for views that functionalization made again: those of the same calls before it.

    Where some of these are gone, it is the line of what such a view reads.
    """
    unknown = [x for x in graph.nodes if x.op == "call_function" and not x.stack_trace]
    for node in unknown:
        same, made = (list(g.find_nodes(op=node.op, target=node.target)) for g in (before, graph))
        sources = [same[made.index(node)]] if len(same) == len(made) else node.all_input_nodes
        node.stack_trace = next((x.stack_trace for x in sources if x.stack_trace), None)


def writes_through(program: ExportedProgram) -> bool:
    """Whether the program writes a value that others may see too."""
    return any(_writes(node) and not _is_fresh(node.args[0]) for node in program.graph.nodes)


def _writes(node: Node) -> bool:
    return isinstance(node.target, torch._ops.OpOverload) and node.target._schema.is_mutable


def _is_fresh(node: Any) -> bool:
    """Whether a write into `node` changes no other value."""
    if not isinstance(node, Node) or node.op != "call_function" or _aliases(node):
        return False
    readers = [user for user in node.users if not _writes(user)]
    return not any(_aliases(reader) for reader in readers)


def _aliases(node: Node) -> bool:
    """Whether the result may share the storage of an operand that it does not write."""
    if node.target is operator.getitem:
        return isinstance(node.args[0], Node) and _aliases(node.args[0])
    if node.target in MARKS:
        return True
    if not isinstance(node.target, torch._ops.OpOverload) or _writes(node):
        return False
    return any(result.alias_info is not None for result in node.target._schema.returns)


@cache
def _functional(target: Any) -> Any:
    """The operation without the write: aten.relu for aten.relu_, None for any other target."""
    if not isinstance(target, torch._ops.OpOverload) or target.namespace != "aten":
        return None
    name = target._schema.name.removeprefix("aten::")
    pure = getattr(torch.ops.aten, name.removesuffix("_"), None) if name.endswith("_") else None
    found = getattr(pure, target._overloadname, None)
    return found if found is not None and _same_arguments(found, target) else None


def _same_arguments(pure: Any, writing: Any) -> bool:
    """Whether the operations take the same arguments, of which `writing` changes the first."""
    names = [[argument.name for argument in op._schema.arguments] for op in (pure, writing)]
    written = [argument.is_write for argument in writing._schema.arguments]
    return names[0] == names[1] and written[:1] == [True] and not any(written[1:])
