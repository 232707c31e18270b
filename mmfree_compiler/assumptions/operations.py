"""Operations: each must compute the same at every call, and write only what the call has made."""

from __future__ import annotations

import operator
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import fx
from torch.export import ExportedProgram
from torch.fx import Node

from mmfree_compiler.errors import TraceError
from mmfree_compiler.origin import own_line, place_of, source_line

# Batch normalizations and their argument that says whether they use the batch at hand.
_NORMS = {"aten::batch_norm": "training", "aten::instance_norm": "use_input_stats"}
# What export makes of `with` blocks -> why they are refused, and what to do about it.
_BLOCKS = {
    "wrap_with_autocast": (
        "runs under autocast, which chooses the precision of each operation",
        "Leave autocast out: a compiled model computes in float32",
    ),
    "wrap_with_set_grad_enabled": (
        "switches gradients on",
        "Leave it out: a compiled model has no gradients",
    ),
}
_STATISTICS = "Normalize by running statistics: training=False, or track_running_stats=True"
# Arguments of which one that is off takes all chance out of an operation.
_CHANCES = ("train", "training", "dropout", "dropout_p")


def check_operations(program: ExportedProgram) -> None:
    """Raise TraceError on the first operation that a graph cannot repeat."""
    signature = program.graph_signature
    held = {
        **signature.inputs_to_parameters,
        **signature.inputs_to_buffers,
        **signature.inputs_to_lifted_tensor_constants,
    }
    for node in graph_nodes(program):
        if isinstance(node.target, torch._ops.HigherOrderOperator):
            raise _holds_a_graph(node)
        schema = getattr(node.target, "_schema", None)
        for cause, hint in _faults(node, schema, held) if schema else ():
            raise TraceError(place_of(node), cause, hint)


def graph_nodes(program: ExportedProgram) -> Iterator[Node]:
    """The nodes of the graph and of the graphs within it."""
    for module in program.graph_module.modules():
        if isinstance(module, fx.GraphModule):
            yield from module.graph.nodes


def _holds_a_graph(node: Node) -> TraceError:
    """The error for a `with` block or a control flow op: code that is a graph in the graph."""
    name = str(node.target)
    cause, hint = _BLOCKS.get(name, (f"calls {name}", "Write it without control flow ops"))
    owner = node.graph.owning_module
    assert owner is not None
    read = [str(x.target) for x in node.all_input_nodes if x.op == "get_attr"]
    graphs = [graph for name, graph in owner.named_children() if name in read]
    inner = [n for graph in graphs if isinstance(graph, fx.GraphModule) for n in graph.graph.nodes]
    lines = filter(None, (f(x) for f in (own_line, source_line) for x in (node, *inner)))
    return TraceError(next(lines, name), cause, hint)


def _faults(node: Node, schema: Any, held: Mapping[str, str]) -> Iterator[tuple[str, str]]:
    """Why the operation is refused, and what to do about it; `held` has names of tensors."""
    arguments = _arguments(node, schema)
    for name in (argument.name for argument in schema.arguments if argument.is_write):
        for root in _roots(arguments.get(name)):
            name = held.get(root.name, root.name)
            yield f"writes into {name}, which outlives the call", "Write into a copy: x.clone()"
    if _is_random(node, arguments):
        yield "is random", "Pass the random numbers in, or train=False to dropout"
    if arguments.get(_NORMS.get(schema.name, "")) is True:
        yield "depends on the other rows of the batch", _STATISTICS


def _arguments(node: Node, schema: Any) -> dict[str, Any]:
    """The arguments of a call by name, with the defaults of those that are left out."""
    given = dict(zip((argument.name for argument in schema.arguments), node.args, strict=False))
    defaults = {argument.name: argument.default_value for argument in schema.arguments}
    return {**defaults, **given, **node.kwargs}


def _is_random(node: Node, arguments: dict[str, Any]) -> bool:
    tagged = torch.Tag.nondeterministic_seeded in node.target.tags  # type: ignore[union-attr]
    return tagged and all(arguments[name] for name in _CHANCES if name in arguments)


def _roots(value: Any) -> Iterator[Node]:
    """The inputs, parameters, buffers and constants that a value may be a view of."""
    if isinstance(value, list | tuple):
        for item in value:
            yield from _roots(item)
    if not isinstance(value, Node):
        return
    if value.op == "placeholder":
        yield value
    for source in _viewed(value):
        yield from _roots(source)


def _viewed(node: Node) -> Iterator[Any]:
    """The operands whose storage the result may share."""
    schema = getattr(node.target, "_schema", None)
    if node.target is operator.getitem:
        yield node.args[0]
    elif schema is not None and any(result.alias_info for result in schema.returns):
        arguments = _arguments(node, schema)
        aliased = (argument.name for argument in schema.arguments if argument.alias_info)
        yield from (arguments.get(name) for name in aliased)
