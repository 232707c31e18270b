"""A Program as an ONNX model: each node is the call of a function, and loops are written out."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import onnx
from onnx import helper

from mmfree_compiler.backends.onnx.compile.graph import Array, Body, Model
from mmfree_compiler.backends.onnx.compile.ports import Ports, declared
from mmfree_compiler.backends.onnx.compile.rows import ROWS
from mmfree_compiler.backends.onnx.compile.scope import Scope, rest_of
from mmfree_compiler.backends.onnx.compile.tiles import TILES
from mmfree_compiler.backends.onnx.names import DOMAIN, STATE
from mmfree_compiler.backends.onnx.variants import Variant
from mmfree_compiler.ops import OPS
from mmfree_compiler.program import Loop, Node, Program, Role, Stage, stages_of

EMITTERS = ROWS | TILES


@dataclass(frozen=True)
class Made:
    """An ONNX model without the `data` of its tensors, which are the bytes of each by name.

    `stored` are the bytes of all constants by what they are.
    """

    proto: onnx.ModelProto
    data: dict[str, Array]
    stored: Counter[Role]


def model(program: Program, variant: Variant) -> Made:
    """The ONNX model of a Program whose weights are packed for `variant`."""
    opsets = [helper.make_opsetid(*one) for one in (("", variant.opset), *variant.domains)]
    ports, made = Ports.of(program), Model(opsets)
    writer = _Writer(program, variant, made, ports)
    writer.write()
    inputs, outputs = ports.declared(program)
    graph = helper.make_graph(
        made.nodes, program.kind, inputs, outputs, made.initializers, value_info=writer.rows
    )
    proto: onnx.ModelProto = helper.make_model(
        graph,
        functions=made.functions,
        opset_imports=[*opsets, helper.make_opsetid(DOMAIN, 1)],
        ir_version=variant.ir_version,
        producer_name="mmfree-compiler",
    )
    return Made(proto, made.data, made.stored)


def call_names(program: Program) -> Iterator[tuple[str, list[str]]]:
    """The first output of each node, and what the model's calls of it are called."""
    for step in program.body:
        stages = stages_of(step)
        prefixes = [_prefix(n) for n in range(step.count)] if isinstance(step, Loop) else [""]
        for node in (node for stage in stages for node in stage.nodes):
            yield node.outputs[0], [f"{prefix}{node.outputs[0]}" for prefix in prefixes]


def _prefix(layer: int) -> str:
    """What names of an iteration begin with."""
    return f"layer{layer}/"


@dataclass
class _Writer:
    """`names` has the graph's name of each value, `after` the states that scans left so far."""

    program: Program
    variant: Variant
    model: Model
    ports: Ports
    names: dict[str, str] = field(default_factory=dict)
    after: dict[str, list[str]] = field(default_factory=dict)
    rests: set[str] = field(default_factory=set)  # of codes, by rest_of
    # Rows of fp32: inference of shapes goes no further than a product that others have defined.
    rows: list[onnx.ValueInfoProto] = field(default_factory=list)

    def write(self) -> None:
        self.names.update(zip(self.program.inputs, self.ports.inputs, strict=True))
        for step in self.program.body:
            if isinstance(step, Loop):
                self._loop(step)
            else:
                self._stage(step, "", 0)
        for name, output in zip(self.program.outputs, self.ports.outputs, strict=True):
            self.model.add("Identity", output, [self.names[name]], [output])
        for slot, output in zip(self.program.states, self.ports.next_states, strict=True):
            layers = [self.model("Unsqueeze", state, (1,)) for state in self.after[slot.name]]
            self.model.add("Concat", output, layers, [output], axis=1)

    def _loop(self, loop: Loop) -> None:
        names = self.names
        for initial, inside in loop.carried:
            names[inside] = names[initial]
        for layer in range(loop.count):
            for stage in loop.body:
                self._stage(stage, _prefix(layer), layer)
            made = [names[name] for name in loop.updates]
            for (_, inside), result, update in zip(loop.carried, loop.results, made, strict=True):
                names[inside] = names[result] = update

    def _stage(self, stage: Stage, prefix: str, layer: int) -> None:
        for node in stage.nodes:
            self._node(node, prefix, layer)

    def _node(self, node: Node, prefix: str, layer: int) -> None:
        operands = dict(self._operands(node))
        called = {name: parameter for parameter, name in reversed(operands.items())}
        rows = {p: self.names[name] for p, name in operands.items() if name in self.names}
        named = {rest_of(p): rest_of(name) for p, name in rows.items()}
        rows |= {p: name for p, name in named.items() if name in self.rests}
        if node.state:
            before = self.ports.states[self._slot(node.state)]
            rows[STATE] = self.model("Gather", before, np.int64(layer), axis=1)
        name, body = f"{prefix}{node.outputs[0]}", Body(rows)
        scope = Scope(self.program, self.model, self.variant, name, layer, body, called)
        results = EMITTERS[node.op](scope, node)
        outputs = [f"{prefix}{output}" for output in node.outputs]
        self.names.update(zip(node.outputs, outputs, strict=True))
        values = [self.program.values[output] for output in node.outputs]
        self.rows += [
            declared(value, output)
            for value, output in zip(values, outputs, strict=True)
            if value.dtype == "float32"
        ]
        # Codes and scales alternate.
        rests = [rest_of(codes) for codes, _ in zip(outputs[::2], scope.rests, strict=False)]
        self.rests.update(rests)
        outputs += rests
        if node.state:
            outputs.append(f"{name}.after")
            self.after.setdefault(node.state, []).append(outputs[-1])
        attributes = {k: v for k, v in node.attrs.items() if v is not None} | scope.sizes
        made = *results, *scope.rests, *scope.after
        self.model.call(node.op, name, body, made, outputs, attributes)

    def _operands(self, node: Node) -> Iterator[tuple[str, str]]:
        """What the op calls each operand, and the operand; those of a list are numbered."""
        names = iter(node.inputs)
        for parameter in OPS[node.op].parameters:
            count = int(str(node.attrs["groups"])) if parameter.form == "tensors" else 1
            for index in range(count if parameter.form != "scalar" else 0):
                name = next(names)
                if name is not None:
                    yield f"{parameter.name}{index if count > 1 else ''}", name

    def _slot(self, state: str) -> int:
        return [slot.name for slot in self.program.states].index(state)
