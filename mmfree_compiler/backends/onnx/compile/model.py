"""A Program as an ONNX graph: ports, states, and its nodes with loops written out."""

from __future__ import annotations

from collections import Counter

import onnx
from onnx import helper

from mmfree_compiler.backends.onnx.compile.graph import Graph
from mmfree_compiler.backends.onnx.compile.ports import Ports
from mmfree_compiler.backends.onnx.compile.rows import ROWS
from mmfree_compiler.backends.onnx.compile.scope import Scope
from mmfree_compiler.backends.onnx.compile.tiles import TILES
from mmfree_compiler.backends.onnx.variants import Variant
from mmfree_compiler.program import Loop, Program, Role, Stage

EMITTERS = ROWS | TILES


def model(program: Program, variant: Variant) -> tuple[onnx.ModelProto, Counter[Role]]:
    """The ONNX model of a Program whose weights are packed for `variant`.

    With it come the bytes of its constants by what they are.
    """
    ports = Ports.of(program)
    scope = Scope(program, Graph(), variant)
    scope.names |= zip(program.inputs, ports.inputs, strict=True)
    for slot, name in zip(program.states, ports.states, strict=True):
        scope.states[slot.name], scope.next_states[slot.name] = name, []
    for step in program.body:
        if isinstance(step, Loop):
            _loop(scope, step)
        else:
            _stage(scope, step, "")
    _end(scope, ports)
    graph = helper.make_graph(
        scope.graph.nodes, program.kind, *ports.declared(program), scope.graph.initializers
    )
    opsets = [helper.make_opsetid("", variant.opset)]
    opsets += [helper.make_opsetid(name, version) for name, version in variant.domains]
    made: onnx.ModelProto = helper.make_model(
        graph, opset_imports=opsets, ir_version=variant.ir_version, producer_name="mmfree-compiler"
    )
    return made, scope.graph.stored


def _loop(scope: Scope, loop: Loop) -> None:
    names = scope.names
    for initial, inside in loop.carried:
        names[inside] = names[initial]
    for layer in range(loop.count):
        scope.layer = layer
        for stage in loop.body:
            _stage(scope, stage, f"layer{layer}/")
        updates = [names[name] for name in loop.updates]
        for (_, inside), result, update in zip(loop.carried, loop.results, updates, strict=True):
            names[inside] = names[result] = update
    scope.layer = 0


def _stage(scope: Scope, stage: Stage, prefix: str) -> None:
    for node in stage.nodes:
        scope.graph.scope = f"{prefix}{node.outputs[0]}"
        made = EMITTERS[node.op](scope, node)
        scope.names.update(zip(node.outputs, made, strict=True))


def _end(scope: Scope, ports: Ports) -> None:
    """Name the outputs, and put the states of all layers together."""
    g, program = scope.graph, scope.program
    for name, output in zip(program.outputs, ports.outputs, strict=True):
        g.named("Identity", output, scope[name])
    for slot, output in zip(program.states, ports.next_states, strict=True):
        g.scope = output
        layers = [g("Unsqueeze", state, (1,)) for state in scope.next_states[slot.name]]
        g.named("Concat", output, *layers, axis=1)
