"""The checks of `lower`: whether a graph still works when batch and time become rows."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from torch import Tensor, fx
from torch.fx.experimental.symbolic_shapes import statically_known_true

from mmfree_compiler.errors import UnsupportedError
from mmfree_compiler.ops import OPS
from mmfree_compiler.ops.table import Kind
from mmfree_compiler.program import Node, Program, Value

_ROWS = "Return rows of floats, with the leading dimensions of an input"


def leading(val: Tensor) -> tuple[Any, ...]:
    """Batch and time: all dimensions of token ids, all but the last one of rows."""
    return tuple(val.shape[:-1] if val.is_floating_point() else val.shape)


def check_leading(thing: str, val: Tensor, inputs: Iterable[Tensor]) -> None:
    """Raise UnsupportedError unless `val` has the batch and time of one of the inputs."""
    sizes = leading(val)
    if not any(_equal(sizes, leading(example)) for example in inputs):
        cause = f"has leading dimensions {sizes}, which no input has"
        raise UnsupportedError(thing, cause, _ROWS)


def _equal(a: tuple[Any, ...], b: tuple[Any, ...]) -> bool:
    """Whether two shapes are equal for every batch and time."""
    return len(a) == len(b) and all(
        statically_known_true(x == y) for x, y in zip(a, b, strict=True)
    )


def check_initial_state(node: fx.Node, state: object) -> None:
    """Raise UnsupportedError on a scan that starts from a state that the graph computes."""
    if state is not None:
        cause = "starts from a state that the graph computes"
        hint = "Pass no initial state: the runtime supplies it at each call"
        raise UnsupportedError(str(node), cause, hint)


def check_output(thing: str, value: Value | None) -> None:
    """Raise UnsupportedError unless an output is a row of floats that the graph computes."""
    if value is None or value.dtype != "float32":
        raise UnsupportedError(thing, "is not a row of floats computed from the inputs", _ROWS)
    if not value.width:
        raise UnsupportedError(thing, "has no columns", _ROWS)


def check_operands(program: Program, node: Node) -> None:
    """Raise UnsupportedError on rows and constants of other sizes than the op takes.

    A constant of a pointwise op may be a single element.
    """
    for name, known in zip(node.inputs, _shapes(program, node), strict=False):
        if name is None:
            continue
        shape, constant = _shape(program, name), program.constants.get(name)
        if not any(_fits(shape, one) for one in known):
            cause = f"has shape {_written(shape)}, not {' or '.join(map(_written, known))}"
            raise _unfit(node, name, cause, "Broadcast it first, or make it a buffer of that shape")
        if OPS[node.op].kind == "pointwise" and constant and constant.dtype != "float32":
            raise _unfit(node, name, f"is {constant.dtype}, not float32", "Convert it first")


def _unfit(node: Node, name: str, cause: str, hint: str) -> UnsupportedError:
    return UnsupportedError(node.source or node.op, f"operand {name} of {node.op} {cause}", hint)


Shape = tuple[int | None, ...]  # None: any size


def _shapes(program: Program, node: Node) -> list[list[Shape]]:
    """The shapes that each operand of a node may have; of a row, those of one token."""
    width = program.values[node.outputs[0]].width
    kind = OPS[node.op].kind
    if kind == "linear":
        k = program.values[str(node.inputs[0])].width
        return [[(k,)], [(1,)], [(width, k)], [(1,), ()], [(width,)]]
    if kind == "gather":
        return [[(1,)], [(None, width)]]
    return [_operand(program, name, width, kind) for name in node.inputs]


def _operand(program: Program, name: str | None, width: int, kind: Kind) -> list[Shape]:
    constant = program.constants.get(name or "")
    if constant is None:
        return [(width,)]
    if constant.role == "taps":
        return [(width, None)]
    return [(1,), (width,)] if kind == "pointwise" else [(width,)]


def _shape(program: Program, name: str) -> tuple[int, ...]:
    constant = program.constants.get(name)
    return constant.shape if constant else (program.values[name].width,)


def _fits(shape: tuple[int, ...], known: Shape) -> bool:
    return len(shape) == len(known) and all(
        size == other or other is None for size, other in zip(shape, known, strict=True)
    )


def _written(shape: Shape) -> str:
    sizes = ["any" if size is None else str(size) for size in shape]
    return f"({', '.join(sizes)}{',' if len(sizes) == 1 else ''})"


def check_signature(program: Program) -> None:
    """Raise UnsupportedError on inputs and outputs that the runtime cannot pass."""
    ids = [name for name in program.inputs if program.values[name].dtype == "int64"]
    embedded = {node.inputs[0] for node in program.nodes() if node.op == "embedding"}
    if not program.outputs:
        raise UnsupportedError("the module", "returns no rows", _ROWS)
    if not ids:
        return
    if len(program.inputs) > 1 or len(program.outputs) > 1 or ids[0] not in embedded:
        raise UnsupportedError(
            f"token ids {ids[0]}",
            "are not the only input of a model that embeds them and has one output",
            "Embed outside of the module, and pass rows of floats",
        )
