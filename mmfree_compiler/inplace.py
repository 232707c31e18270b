"""In-place operations of an exported program, and the graph without them."""

from __future__ import annotations

import operator
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
        program = program.run_decompositions({})
    gm = program.module(check_guards=False)
    assert isinstance(gm, GraphModule)
    written: dict[Node, Node] = {}  # value -> the call that wrote it last

    def latest(node: Node) -> Node:
        while node in written:
            node = written[node]
        return node

    for node in gm.graph.nodes:
        node.args, node.kwargs = fx.map_arg((node.args, node.kwargs), latest)
        if node.target in _FUNCTIONAL:
            written[node.args[0]] = node
            node.target = _FUNCTIONAL[node.target]
    gm.recompile()
    return gm


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


def _pairs() -> dict[Any, Any]:
    """In-place overload -> its functional one, for the operations that models use."""
    names = (
        "abs add clamp clamp_min clamp_max detach div exp mul neg reciprocal relu round rsqrt "
        "sigmoid silu sqrt square sub tanh"
    )
    pairs: dict[Any, Any] = {}
    for name in names.split():
        writing, pure = getattr(torch.ops.aten, name + "_"), getattr(torch.ops.aten, name)
        for overload in writing.overloads():
            if overload in pure.overloads():
                pairs[getattr(writing, overload)] = getattr(pure, overload)
    return pairs


_FUNCTIONAL = _pairs()
