"""Cutting a graph into parts that a target runs, and the rest, which runs in torch."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner, Partition
from torch.fx.passes.operator_support import OperatorSupportBase

from mmfree_compiler import graph_text
from mmfree_compiler.errors import UnsupportedError
from mmfree_compiler.notes import Note
from mmfree_compiler.ops import OPS
from mmfree_compiler.origin import place_of
from mmfree_compiler.parted import Example, Parted
from mmfree_compiler.passes.pattern import aten
from mmfree_compiler.passes.rewrite import calls
from mmfree_compiler.passes.row_rules import check_leading
from mmfree_compiler.runtime import Session

CompilePart = Callable[[fx.GraphModule], Session]

# They read memory by strides, and values of a cut graph have other strides than the module's.
_BY_STRIDES = {
    aten.as_strided.default,
    aten.as_strided_copy.default,
    aten.as_strided_scatter.default,
}


def cut(graph: fx.GraphModule, lowered: frozenset[str], compile_part: CompilePart) -> Parted:
    """Cut `graph` into the largest parts of `lowered` ops, and compile each with `compile_part`.

    A part that cannot be compiled stays in torch. Raises UnsupportedError on operations that mean
    something else in a cut graph.
    """
    for node in calls(graph, _BY_STRIDES):
        cause = f"{node.target} reads memory by strides"
        raise UnsupportedError(place_of(node), cause, "Index or slice instead")
    # Token ids stay in torch: a part takes and returns rows.
    rows = frozenset(OPS[name].overload for name in lowered if OPS[name].kind != "gather")
    examples = tuple(Example.of(x.meta["val"]) for x in graph.graph.find_nodes(op="placeholder"))
    partitioner = CapabilityBasedPartitioner(
        graph, _Lowered(rows), allows_single_node_partition=True
    )
    partitions = partitioner.propose_partitions()
    _keep_codes(partitions)
    parted = partitioner.fuse_partitions([part for part in partitions if part.nodes])
    found = [*graph_text.notes(graph), *_compile_parts(parted, compile_part)]
    parted = _finished(parted)
    eager = list(_eager_nodes(parted))
    found += [Note("fallback", node.name, f"{node.target}, in torch") for node in eager]
    names = tuple(sorted({str(node.target) for node in eager}))
    return Parted(parted, examples, names, tuple(found))


class _Lowered(OperatorSupportBase):
    """Ops on rows that the target lowers; a list's item belongs to the op that made the list."""

    def __init__(self, overloads: frozenset[Any]) -> None:
        self._overloads = overloads

    def is_node_supported(self, _: Any, node: fx.Node) -> bool:
        if node.target is operator.getitem:
            source = node.args[0]
            return isinstance(source, fx.Node) and self.is_node_supported(_, source)
        return (
            node.op == "call_function"
            and node.target in self._overloads
            and all(_is_row(x) for x in (*node.all_input_nodes, node) if x.op != "get_attr")
        )


def _is_row(node: fx.Node) -> bool:
    """Whether a value is rows of fp32 or of codes; so are all items of a list of them."""
    value = node.meta.get("val")
    rows = value if isinstance(value, list | tuple) else (value,)
    return all(
        isinstance(x, Tensor) and x.dtype in (torch.float32, torch.int8) and x.dim() > 0
        for x in rows
    )


def _keep_codes(partitions: list[Partition]) -> None:
    """Give each part its own copy of the quantizers whose codes it reads.

    Parts exchange rows of floats only. A copy reads what the original reads, on which the readers
    of its codes depend anyway: no circle arises.
    """
    for home in partitions:
        for quantizer in [node for node in home.nodes if _makes_codes(node)]:
            for part in partitions:
                if part is not home:
                    _copy_into(part, quantizer)
            for unread in [*quantizer.users, quantizer]:
                if not unread.users:
                    home.remove_node(unread)
                    unread.graph.erase_node(unread)


def _makes_codes(node: fx.Node) -> bool:
    value = node.meta.get("val")
    return isinstance(value, list) and any(x.dtype == torch.int8 for x in value)


def _copy_into(part: Partition, quantizer: fx.Node) -> None:
    """Let the nodes of `part` that read items of `quantizer` read those of a copy in the part."""
    items = list(quantizer.users)
    readers = [reader for item in items for reader in item.users if reader in part.nodes]
    if not readers:
        return
    with quantizer.graph.inserting_before(min(readers)):
        copies = {quantizer: quantizer.graph.node_copy(quantizer)}
        copies |= {old: quantizer.graph.node_copy(old, copies.__getitem__) for old in items}
    for old, new in copies.items():
        part.add_node(new)
        for reader in readers:
            reader.replace_input_with(old, new)


def _compile_parts(parted: fx.GraphModule, compile_part: CompilePart) -> Iterator[Note]:
    """Replace each part of the graph by a compiled one; yields the notes of their passes."""
    for node in parted.graph.find_nodes(op="call_module"):
        name = str(node.target)
        part = parted.get_submodule(name)
        assert isinstance(part, fx.GraphModule)
        part.graph.eliminate_dead_code()  # unread items of copied quantizers
        _take_in_constants(parted, node, part)
        try:
            _check_inputs(part)
            session = compile_part(part)
        except UnsupportedError as error:
            yield Note("fallback", name, f"in torch: {error.fault}")
            continue
        parted.set_submodule(name, _Part(session))
        yield from (Note(step, name, text) for step, _, text in session.artifact.manifest.all_notes)


def _take_in_constants(parent: fx.GraphModule, call: fx.Node, part: fx.GraphModule) -> None:
    """Turn the parameters that the parent passes to a part into constants of the part."""
    placeholders = part.graph.find_nodes(op="placeholder")
    kept = []
    for argument, placeholder in zip(call.args, placeholders, strict=True):
        if not (isinstance(argument, fx.Node) and argument.op == "get_attr"):
            kept.append(argument)
            continue
        name = f"constant_{placeholder.name}"
        part.register_buffer(name, operator.attrgetter(str(argument.target))(parent).detach())
        with part.graph.inserting_before(placeholder):
            constant = part.graph.get_attr(name)
        constant.meta = dict(argument.meta)
        placeholder.replace_all_uses_with(constant)
        part.graph.erase_node(placeholder)
    call.args = tuple(kept)
    part.recompile()


def _check_inputs(part: fx.GraphModule) -> None:
    """Raise UnsupportedError unless the inputs of a part have equal leading dimensions.

    A part runs row by row: it does not repeat the rows of one input for those of another.
    """
    first, *others = part.graph.find_nodes(op="placeholder")
    for other in others:
        check_leading(str(other), other.meta["val"], [first.meta["val"]])


class _Part(nn.Module):
    """A compiled part as a module of the graph."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    def forward(self, *inputs: Tensor) -> Any:
        return self.session(*inputs) if inputs[0].numel() else self._nothing(inputs[0])

    def _nothing(self, empty: Tensor) -> Any:
        """The outputs for no rows: a session takes at least one."""
        ports = self.session.artifact.manifest.outputs
        outputs = tuple(empty.new_empty(*empty.shape[:-1], port.width) for port in ports)
        return outputs if len(outputs) > 1 else outputs[0]


def _finished(parted: fx.GraphModule) -> fx.GraphModule:
    """Make the rest of the graph independent of how parts lay out their results in memory."""
    for view in calls(parted, [aten.view.default]):
        view.target = aten.reshape.default
    (output,) = parted.graph.find_nodes(op="output")
    for given in output.all_input_nodes:
        if given.op in ("placeholder", "get_attr"):  # perhaps of a clone that a pass dropped
            with parted.graph.inserting_before(output):
                copy = parted.graph.call_function(aten.clone.default, (given,))
            output.replace_input_with(given, copy)
    parted.graph.eliminate_dead_code()
    return fx.GraphModule(parted, parted.graph)  # that of an export cannot be pickled


def _eager_nodes(parted: fx.GraphModule) -> Iterator[fx.Node]:
    """The calls that run in torch, those of parts that could not be compiled included."""
    for part in parted.modules():
        if isinstance(part, fx.GraphModule):
            computed = (node for node in part.graph.nodes if node.op == "call_function")
            yield from (node for node in computed if node.target is not operator.getitem)
