"""The nodes of a model as submodules, so that what cannot be compiled is named by its node."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
from onnx import helper
from torch import Tensor, nn

from mmfree_compiler.backends.onnx.importing.functions import call_op, prepared
from mmfree_compiler.backends.onnx.importing.operators import OPERATORS
from mmfree_compiler.backends.onnx.importing.reading import to_torch
from mmfree_compiler.backends.onnx.importing.values import Value
from mmfree_compiler.backends.onnx.names import DOMAIN, REST, STATE
from mmfree_compiler.backends.onnx.variants import Variant
from mmfree_compiler.errors import ArtifactError, CheckpointError

_LONGEST = 200  # characters of a name in a message
_AGAIN = "Export the model again, from its checkpoint"


@dataclass(frozen=True)
class Call:
    """What a node calls: the full `name`, attributes in Python's values, operands and outputs.

    `node` is what messages call the node; `formals` are what a function of this package calls its
    operands.
    """

    name: str
    operands: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(repr=False)
    node: str
    formals: tuple[str, ...] = ()

    @property
    def is_known(self) -> bool:
        return bool(self.formals) or self.name in OPERATORS

    @property
    def rows(self) -> tuple[str, ...]:
        """The operands that are needed: a scan begins without a state."""
        if not self.formals:
            return self.operands
        given = zip(self.formals, self.operands, strict=True)
        return tuple(operand for formal, operand in given if not is_left_out(formal))


def call_of(path: Path, node: onnx.NodeProto, functions: Mapping[str, onnx.FunctionProto]) -> Call:
    """The call of a node.

    Raises CheckpointError on a constant that cannot be read, and on a function of this package that
    is called without one of its operands.
    """
    own = node.domain in ("", "ai.onnx")
    attributes = {a.name: _value(path, a) for a in node.attribute}
    attributes["outputs"] = len(node.output)
    called = functions.get(node.op_type) if node.domain == DOMAIN else None
    if called and (len(node.input) != len(called.input) or "" in node.input):
        cause = f"calls {node.op_type} with other operands than this version writes"
        raise CheckpointError(_shown(node), cause, _AGAIN)
    return Call(
        node.op_type if own else f"{node.domain}.{node.op_type}",
        tuple(node.input),
        tuple(node.output),
        attributes,
        _shown(node),
        tuple(called.input) if called else (),
    )


def _shown(node: onnx.NodeProto) -> str:
    """What messages call a node: by its name, or by what it makes."""
    name = node.name or ", ".join(node.output)
    return f"node {name[:_LONGEST]!r}"


def _value(path: Path, attribute: onnx.AttributeProto) -> Any:
    value = helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return to_torch(path, value)
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return tuple(value) if attribute.ints else value


class Step(nn.Module):
    """A node of an operator."""

    def __init__(self, call: Call) -> None:
        super().__init__()
        self.call, self.name_in_file = call, call.node

    def forward(self, *operands: Value) -> Value:
        return OPERATORS[self.call.name](self.call.attributes, *operands)


class OpStep(nn.Module):
    """A call of a function of this package. The constants that it passes are the step's buffers.

    Raises CheckpointError on constants of another layout.
    """

    def __init__(self, call: Call, constants: Mapping[str, Tensor], variant: Variant) -> None:
        super().__init__()
        self.call, self.name_in_file = call, call.node
        given = dict(zip(call.formals, call.operands, strict=True))
        passed = {formal: constants[x] for formal, x in given.items() if x in constants}
        self.op = call.name.partition(".")[2]
        self.held: list[str] = []
        try:
            buffers = prepared(self.op, passed, call.attributes, variant)
        except (ArtifactError, LookupError, ValueError, TypeError, RuntimeError) as error:
            cause = f"calls {self.op} with other constants than this version writes"
            raise CheckpointError(call.node, cause, _AGAIN) from error
        for name, value in buffers.items():
            self.register_buffer(name, value)
            self.held.append(name)
        self.read = [f for f in call.formals if f not in passed and not is_left_out(f)]

    def forward(self, *operands: Value) -> Value:
        given = dict(zip(self.read, operands, strict=True))
        given |= {name: getattr(self, name) for name in self.held}
        return call_op(self.op, given, self.call.attributes)


def is_left_out(formal: str) -> bool:
    """Whether importing does without an operand: states, and the rest of codes."""
    return formal == STATE or formal.endswith(f".{REST}")


def attribute_name(name: str, taken: Collection[str]) -> str:
    """`name` as the name of a submodule or a buffer that is not `taken`."""
    made = re.sub(r"[^\w/]", "_", name) or "_"
    while made in taken or hasattr(nn.Module, made):
        made += "_"
    return made
