"""torch.fx graph -> Program: batch and time become tokens, parameters become constants."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch import fx

from mmfree_compiler.errors import UnsupportedError
from mmfree_compiler.graph_text import notes
from mmfree_compiler.notes import Note
from mmfree_compiler.ops import OPS, Op
from mmfree_compiler.origin import own_line, source_line
from mmfree_compiler.passes.check_supported import VIEWS
from mmfree_compiler.passes.containers import Describer, outputs_of
from mmfree_compiler.passes.row_rules import (
    check_initial_state,
    check_leading,
    check_operands,
    check_output,
    check_signature,
)
from mmfree_compiler.program import (
    Array,
    Attr,
    Constant,
    Node,
    Program,
    Stage,
    StateSlot,
    Value,
    ValueType,
)
from mmfree_compiler.structure import plain

_VALUE_TYPES: dict[torch.dtype, ValueType] = {
    torch.float32: "float32",
    torch.int8: "int8",
    torch.int64: "int64",
}
_INPUTS = (torch.float32, torch.int64)
_OP_OF = {op.overload: op for op in OPS.values()}


def lower(gm: fx.GraphModule) -> Program:
    """Make a Program of a graph of mmfree ops: one row per token, one stage per node.

    Raises UnsupportedError when a view changes rows, or inputs are neither ids nor rows of floats.
    """
    builder = _Builder(gm)
    for node in gm.graph.nodes:
        builder.add(node)
    outputs, container = outputs_of(gm)
    for k, output in enumerate(outputs):
        builder.add_output(k, output)
    describe = Describer()
    result = describe(container)
    program = Program(
        kind="module",
        inputs=tuple(builder.inputs),
        outputs=tuple(builder.outputs),
        values={value.name: value for value in builder.values.values()},
        constants=builder.constants,
        states=tuple(builder.states),
        body=tuple(_alone(node) for node in builder.nodes),
        notes=(*notes(gm), *(_simplified(name) for name in describe.simplified)),
        result=None if result == plain(len(outputs)) else result,
    )
    check_signature(program)
    for made in builder.nodes:
        check_operands(program, made)
    if _makes_logits(program):
        # A language model returns logits and a state, whatever the module returns logits in.
        return replace(program, kind="lm", result=None)
    return program


def _makes_logits(program: Program) -> bool:
    """Whether the output can be logits: of ids that the model can read."""
    ids, rows = program.inputs[0], program.outputs[0]
    is_ids = program.values[ids].dtype == "int64"
    return is_ids and program.values[rows].width <= program.vocabulary(ids)


def _simplified(name: str) -> Note:
    return Note("lower", name, "returned as a dict")


def _alone(node: Node) -> Stage:
    return Stage((node,), ()) if OPS[node.op].kind == "row" else Stage((), (node,))


@dataclass
class _Builder:
    """The Program under construction; `names` maps fx nodes to value or constant names."""

    gm: fx.GraphModule
    names: dict[fx.Node, str | tuple[str, ...]] = field(default_factory=dict)
    inputs: dict[str, Value] = field(default_factory=dict)
    examples: list[torch.Tensor] = field(default_factory=list)  # the inputs' fake tensors
    targets: dict[str, str] = field(default_factory=dict)  # attribute -> constant name
    outputs: list[str] = field(default_factory=list)
    values: dict[str, Value] = field(default_factory=dict)
    constants: dict[str, Constant] = field(default_factory=dict)
    states: list[StateSlot] = field(default_factory=list)
    nodes: list[Node] = field(default_factory=list)

    def add(self, node: fx.Node) -> None:
        _ADD[node.op](self, node)

    def _input(self, node: fx.Node) -> None:
        val = node.meta["val"]
        if val.dtype not in _INPUTS:
            cause = f"has dtype {val.dtype}"
            raise UnsupportedError(f"input {node.name}", cause, "Pass fp32 or int64")
        value = self._value(node.name, val)
        self.inputs[value.name] = value
        self.examples.append(val)
        self.names[node] = value.name

    def _constant(self, node: fx.Node) -> None:
        target = str(node.target)
        if target not in self.targets:
            self.targets[target] = name = self._fresh(target)
            tensor = operator.attrgetter(target)(self.gm).detach()
            self.constants[name] = _constant(name, tensor)
        self.names[node] = self.targets[target]

    def add_output(self, k: int, node: fx.Node) -> None:
        found = self.names.get(node)
        place = own_line(node)
        thing = f"output {k} ({place})" if place else f"output {k}"
        check_output(thing, self.values.get(found) if isinstance(found, str) else None)
        check_leading(thing, node.meta["val"], self.examples)
        self.outputs.append(self._name(node))

    def _call(self, node: fx.Node) -> None:
        if node.target is operator.getitem:
            group = self.names[node.args[0]]  # type: ignore[index]  # fx types args loosely
            self.names[node] = group[node.args[1]]  # type: ignore[index]
        elif node.target in _OP_OF:
            self._op(node, _OP_OF[node.target])
        elif node.target in VIEWS:
            self._view(node)
        elif isinstance(node.meta.get("val"), torch.Tensor):
            raise UnsupportedError(str(node), f"{node.target} is not an mmfree op")

    def _view(self, node: fx.Node) -> None:
        source: Any = node.args[0]
        before, after = source.meta["val"].shape, node.meta["val"].shape
        if before[-1] != after[-1]:
            raise UnsupportedError(str(node), f"a view changes rows: {before} to {after}")
        self.names[node] = self.names[source]

    def _op(self, node: fx.Node, op: Op) -> None:
        inputs, attrs = self._arguments(node, op)
        val = node.meta["val"]
        if isinstance(val, torch.Tensor):
            outputs: tuple[str, ...] = (self._value(node.name, val).name,)
            self.names[node] = outputs[0]
        else:
            parts = [self._value(f"{node.name}.{i}", part) for i, part in enumerate(val)]
            outputs = tuple(part.name for part in parts)
            self.names[node] = outputs
        state = None
        if op.kind == "scan":
            check_initial_state(node, inputs[-1])
            check_leading(str(node), node.meta["val"], self.examples)
            state = self._state(node, op)
        self._give_roles(op, inputs)
        self.nodes.append(Node(op.name, inputs, outputs, attrs, state, source_line(node)))

    def _arguments(self, node: fx.Node, op: Op) -> tuple[tuple[str | None, ...], dict[str, Attr]]:
        """Operands in order, list arguments flattened, and scalars by name."""
        inputs: list[str | None] = []
        attrs: dict[str, Attr] = {}
        for argument, parameter in zip(_bound(node, op), op.parameters, strict=True):
            if isinstance(argument, (list, tuple)):
                attrs["groups"] = len(argument)
                inputs.extend(self._name(item) for item in argument)
            elif parameter.form != "scalar":
                inputs.append(None if argument is None else self._name(argument))
            else:
                attrs[parameter.name] = argument
        return tuple(inputs), attrs

    def _name(self, node: Any) -> str:
        name = self.names[node]
        assert isinstance(name, str)
        return name

    def _fresh(self, name: str) -> str:
        """The name, or a similar one if it is taken: values and constants share a namespace."""
        while name in self.values or name in self.constants:
            name += "_"
        return name

    def _value(self, name: str, val: torch.Tensor) -> Value:
        dtype = _VALUE_TYPES[val.dtype]
        name = self._fresh(name)
        value = Value(name, 1 if dtype == "int64" else int(val.shape[-1]), dtype)
        self.values[name] = value
        return value

    def _state(self, node: fx.Node, op: Op) -> str:
        """The slot of a scan's state."""
        assert op.state is not None
        shapes = [x.meta["val"].shape if isinstance(x, fx.Node) else None for x in _bound(node, op)]
        slot = StateSlot(self._name(node), tuple(int(n) for n in op.state.shape(*shapes)))
        self.states.append(slot)
        return slot.name

    def _give_roles(self, op: Op, inputs: tuple[str | None, ...]) -> None:
        """Give constants the roles that the op declares for them."""
        for name, role in op.roles_of(inputs):
            if name in self.constants and role != "row":
                self.constants[name] = replace(self.constants[name], role=role)


# Kinds of fx nodes; traced graphs have no others.
_ADD: dict[str, Callable[[_Builder, fx.Node], None]] = {
    "placeholder": _Builder._input,
    "get_attr": _Builder._constant,
    "call_function": _Builder._call,
    "output": lambda *_: None,  # outputs are added after all nodes
}


def _bound(node: fx.Node, op: Op) -> Iterator[Any]:
    """The call's arguments in schema order, defaults filled in."""
    for i, schema in enumerate(op.overload._schema.arguments):
        if i < len(node.args):
            yield node.args[i]
        else:
            yield node.kwargs.get(schema.name, schema.default_value)


def _constant(name: str, tensor: torch.Tensor) -> Constant:
    tensor = tensor.resolve_conj().resolve_neg()  # views that torch negates when it reads them
    if tensor.dtype == torch.float64:
        tensor = tensor.float()  # fp32 everywhere (numerics 1)
    shape = tuple(tensor.shape) or (1,)
    dtype = str(tensor.dtype).removeprefix("torch.")
    array: Array = (
        tensor.view(torch.int16).numpy().view(np.uint16)
        if tensor.dtype == torch.bfloat16
        else tensor.numpy()
    )
    return Constant(name, dtype, shape, (array.reshape(shape),))
