"""Declaring the inputs and outputs of a model, as ../names.py calls them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from onnx import TensorProto, ValueInfoProto, helper

from mmfree_compiler.backends.onnx.names import (
    BATCH,
    INPUTS,
    OUTPUTS,
    TIME,
    port_names,
    state_names,
)
from mmfree_compiler.program import Program, StateSlot, Value


@dataclass(frozen=True)
class Ports:
    """The names of inputs and outputs in the graph, in order."""

    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    states: tuple[str, ...]
    next_states: tuple[str, ...]

    @classmethod
    def of(cls, program: Program) -> Ports:
        return cls(
            port_names(program.kind, program.inputs, INPUTS),
            port_names(program.kind, program.outputs, OUTPUTS),
            *state_names(tuple(slot.name for slot in program.states)),
        )

    def declared(self, program: Program) -> tuple[list[ValueInfoProto], list[ValueInfoProto]]:
        """Inputs and outputs with their shapes: batch and time are free."""
        inputs = [declared(program.values[v], n) for v, n in _pairs(program.inputs, self.inputs)]
        outputs = [declared(program.values[v], n) for v, n in _pairs(program.outputs, self.outputs)]
        states, after = (
            [_state(slot, name) for slot, name in zip(program.states, names, strict=True)]
            for names in (self.states, self.next_states)
        )
        return [*inputs, *states], [*outputs, *after]


def _pairs(values: Sequence[str], names: Sequence[str]) -> zip[tuple[str, str]]:
    return zip(values, names, strict=True)


def declared(value: Value, name: str) -> ValueInfoProto:
    """A value called `name` with its type and shape."""
    if value.dtype == "int64":
        return helper.make_tensor_value_info(name, TensorProto.INT64, [BATCH, TIME])
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, [BATCH, TIME, value.width])


def _state(slot: StateSlot, name: str) -> ValueInfoProto:
    shape: list[str | int | None] = [BATCH, slot.count, *slot.shape]
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)
