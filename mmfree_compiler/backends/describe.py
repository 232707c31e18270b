"""A Program's manifest fields, the same for every backend."""

from __future__ import annotations

from typing import Any

from mmfree_compiler.artifact import Port, StatePart
from mmfree_compiler.backends import Details
from mmfree_compiler.program import Program
from mmfree_compiler.target import Target


def describe(program: Program, target: Target, details: Details) -> dict[str, Any]:
    """Fields of artifact.Manifest: ports, states, and what is told about the model."""
    return {
        "target": str(target),
        "kind": program.kind,
        "model": dict(details.model),
        "quantization": dict(details.quantization),
        "passes": details.passes,
        "notes": details.notes,
        "inputs": tuple(_port(program, name) for name in program.inputs),
        "outputs": tuple(_port(program, name) for name in program.outputs),
        "states": tuple(_state(program, slot.name) for slot in program.states),
        "state_width": program.state_width,
    }


def _port(program: Program, name: str) -> Port:
    value = program.values[name]
    assert value.dtype != "int8"  # codes never leave a program
    limit = _vocabulary(program, name) if value.dtype == "int64" else None
    return Port(name=name, dtype=value.dtype, width=value.width, stride=value.stride, limit=limit)


def _vocabulary(program: Program, ids: str) -> int:
    """How many rows every table that is read with these ids has."""
    tables = (node.inputs[1] for node in program.nodes() if node.inputs[0] == ids)
    return min(program.constants[table].shape[0] for table in tables if table)


def _state(program: Program, name: str) -> StatePart:
    slot = program.state(name)
    return StatePart(
        name=name,
        offset=program.state_offset(name),
        width=slot.stride,
        count=slot.count,
        shape=slot.shape,
    )
