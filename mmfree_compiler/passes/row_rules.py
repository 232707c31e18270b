"""What a graph must keep to so that batch and time can be forgotten: checks that `lower` makes."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, fx
from torch.fx.experimental.symbolic_shapes import statically_known_true

from mmfree_compiler.errors import UnsupportedError
from mmfree_compiler.ops import OPS
from mmfree_compiler.program import Node, Program, Value

_ROWS = "Return rows of floats, with the leading dimensions of an input"


def leading(val: Tensor) -> tuple[Any, ...]:
    """Batch and time: all dimensions of token ids, all but the last of rows."""
    return tuple(val.shape[:-1] if val.is_floating_point() else val.shape)


def check_leading(thing: str, val: Tensor, inputs: Iterable[Tensor]) -> None:
    """Raise UnsupportedError unless `val` has the batch and time of one of the inputs."""
    here = leading(val)
    for example in inputs:
        there = leading(example)
        if len(here) == len(there) and all(
            statically_known_true(a == b) for a, b in zip(here, there, strict=True)
        ):
            return
    raise UnsupportedError(thing, f"has other leading dimensions, {here}, than the inputs", _ROWS)


def check_initial_state(node: fx.Node, state: object) -> None:
    """Raise UnsupportedError on a scan that starts from a state of the graph's own."""
    if state is not None:
        raise UnsupportedError(
            str(node), "starts from a state of its own", "A compiled scan's state is the caller's"
        )


def check_output(thing: str, value: Value | None) -> None:
    """Raise UnsupportedError unless an output is a row of floats that the graph makes."""
    if value is None or value.dtype != "float32":
        raise UnsupportedError(thing, "is no row of floats that depends on the inputs", _ROWS)


def check_operands(program: Program, node: Node) -> None:
    """Raise UnsupportedError on pointwise operands that are not as wide as the result.

    A constant may be a single element.
    """
    if OPS[node.op].kind != "pointwise":
        return
    width = program.values[node.outputs[0]].width
    for name in node.inputs:
        if name in program.constants:
            constant = program.constants[name]
            fits = constant.dtype == "float32" and constant.shape in ((1,), (width,))
        else:
            fits = name is None or program.values[name].width == width
        if not fits:
            raise UnsupportedError(
                node.source or node.op,
                f"operand {name} of {node.op} is no fp32 row of {width} and no single element",
                "Broadcast it first, or make it a buffer of that width",
            )


def check_signature(program: Program) -> None:
    """Raise UnsupportedError on inputs and outputs that no runtime call has."""
    ids = [name for name in program.inputs if program.values[name].dtype == "int64"]
    embedded = {node.inputs[0] for node in program.nodes() if node.op == "embedding"}
    if not program.outputs:
        raise UnsupportedError("the module", "returns no rows", _ROWS)
    if ids and (len(program.inputs) > 1 or len(program.outputs) > 1 or ids[0] not in embedded):
        raise UnsupportedError(
            f"token ids {ids[0]}",
            "are not the only input of a model that embeds them and has one output",
            "Embed outside, and pass rows of floats",
        )
