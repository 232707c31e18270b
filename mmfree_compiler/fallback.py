"""The eager fallback: supported parts of a graph are compiled, the rest runs in torch."""

from __future__ import annotations

import operator
import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.fx.passes.infra.partitioner import CapabilityBasedPartitioner
from torch.fx.passes.operator_support import OperatorSupportBase

from mmfree_compiler import explain, notes
from mmfree_compiler.errors import TargetError
from mmfree_compiler.notes import Note
from mmfree_compiler.ops import OPS
from mmfree_compiler.runtime import Session

CompilePart = Callable[[fx.GraphModule], Session]


@dataclass(frozen=True)
class EagerModel:
    """A model that runs partly compiled, partly in torch: tensors in, tensors out.

    Sequences start from a zero state at each call. `eager` names the operations that run in torch.
    """

    graph: fx.GraphModule
    eager: tuple[str, ...]
    notes: tuple[Note, ...]

    def __call__(self, *inputs: Tensor) -> Any:
        with torch.no_grad():
            return self.graph(*inputs)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Always raises TargetError: parts of the model exist in this process only."""
        raise TargetError(
            str(path),
            f"a model with eager parts cannot be saved: {', '.join(self.eager)} run in torch",
            'Compile with fallback="error" to list them with their source lines',
        )

    def explain(self) -> str:
        """The notes of all passes and parts, and the operations that run in torch, as text."""
        return notes.text(self.notes)


def eager_model(
    graph: fx.GraphModule, lowered: frozenset[str], compile_part: CompilePart
) -> EagerModel:
    """Cut `graph` into the largest parts of `lowered` ops, and compile each with `compile_part`."""
    # Token ids stay in torch: a part takes and returns rows.
    rows = frozenset(OPS[name].overload for name in lowered if OPS[name].kind != "gather")
    support = _Lowered(rows)
    partitioner = CapabilityBasedPartitioner(graph, support, allows_single_node_partition=True)
    parted = partitioner.partition_and_fuse()
    found = [*explain.notes(graph), *_compile_parts(parted, compile_part)]
    parted.graph.eliminate_dead_code()
    parted.recompile()
    eager = [node for node in parted.graph.nodes if _is_eager(node)]
    found += [Note("fallback", node.name, f"{node.target}, in torch") for node in eager]
    return EagerModel(parted, tuple(sorted({str(node.target) for node in eager})), tuple(found))


def _compile_parts(parted: fx.GraphModule, compile_part: CompilePart) -> list[Note]:
    """Replace each part of the graph by a compiled one; returns the notes of their passes."""
    found: list[Note] = []
    for node in list(parted.graph.find_nodes(op="call_module")):
        part = parted.get_submodule(str(node.target))
        assert isinstance(part, fx.GraphModule)
        _take_in_constants(parted, node, part)
        session = compile_part(part)
        parted.set_submodule(str(node.target), _Part(session))
        made = session.artifact.manifest.notes
        found += [Note(name, str(node.target), text) for name, _, text in made]
    return found


def _is_eager(node: fx.Node) -> bool:
    return node.op == "call_function" and node.target is not operator.getitem


class _Lowered(OperatorSupportBase):
    """Ops that the target lowers; a list's item belongs to the op that made the list."""

    def __init__(self, overloads: frozenset[Any]) -> None:
        self._overloads = overloads

    def is_node_supported(self, _: Any, node: fx.Node) -> bool:
        if node.target is operator.getitem:
            source = node.args[0]
            return isinstance(source, fx.Node) and source.target in self._overloads
        return node.op == "call_function" and node.target in self._overloads


def _take_in_constants(parent: fx.GraphModule, call: fx.Node, part: fx.GraphModule) -> None:
    """Turn the parameters that the parent passes to a part into constants of the part."""
    placeholders = [node for node in part.graph.nodes if node.op == "placeholder"]
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


class _Part(nn.Module):
    """A compiled part as a module of the graph."""

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session

    def forward(self, *inputs: Tensor) -> Any:
        return self.session(*(tensor.float().contiguous() for tensor in inputs))
