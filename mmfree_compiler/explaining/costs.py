"""What a node of a Program reads, writes and computes for one token, by the kind of its op."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np

from mmfree_compiler.explaining.drawn import Cost
from mmfree_compiler.explaining.schema import Ceilings
from mmfree_compiler.ops import OPS, Kind, Op
from mmfree_compiler.program import Constant, Node, Program, Value

Operations = tuple[int, int]  # additions of integers, operations in fp32


def _linear(program: Program, node: Node) -> Operations:
    """One addition per weight; then two factors, and perhaps a bias."""
    rows, columns = _weight(program, node).matrix_shape
    bias = node.inputs[-1] is not None
    return rows * columns, (2 + bias) * rows


def _each_input(program: Program, node: Node) -> Operations:
    """One operation per element that is read or made: sums of squares, products, rounding."""
    names = (*node.inputs, *node.outputs)
    return 0, sum(_width(program, name) for name in names if name)


def _each_output(program: Program, node: Node) -> Operations:
    return 0, sum(_width(program, name) for name in node.outputs)


def _scan(program: Program, node: Node) -> Operations:
    """A product and a sum per element of the state."""
    assert node.state is not None
    return 0, 2 * math.prod(program.state(node.state).shape)


# The fields of a Cost that add up.
_COUNTED = (
    "constant_bytes",
    "state_bytes",
    "value_bytes",
    "integer_operations",
    "float_operations",
)
# No Program has compound ops: passes split them.
_OPERATIONS: dict[Kind, Callable[[Program, Node], Operations]] = {
    "linear": _linear,
    "row": _each_input,
    "pointwise": _each_output,
    "scan": _scan,
    "gather": lambda *_: (0, 0),
}


def cost(program: Program, node: Node, times: int) -> Cost:
    """The cost of `times` calls of a node, one for each iteration of the loop around it."""
    op = OPS[node.op]
    integers, floats = _OPERATIONS[op.kind](program, node)
    operands = {name for name in node.inputs if name}
    read = [program.constants[name] for name in operands if name in program.constants]
    rows = (program.values[name] for name in _values(program, node))
    state = 4 * math.prod(program.state(node.state).shape) if node.state else 0
    return Cost(
        constant_bytes=sum(_read_bytes(constant, times) for constant in read),
        state_bytes=2 * state * times,
        value_bytes=times * sum(map(_row_bytes, rows)),
        integer_operations=times * integers,
        float_operations=times * floats,
    )


def together(costs: Iterable[Cost]) -> Cost:
    """The sum of what several nodes cost, without times."""
    found = list(costs)
    return Cost(**{name: sum(getattr(each, name) for each in found) for name in _COUNTED})


def roofline_us(cost: Cost, ceilings: Ceilings | None) -> float | None:
    """The least time for what a cost says, in microseconds; None without any ceiling.

    Rows are left out: they stay in caches and registers.
    """
    if ceilings is None:
        return None
    nbytes = cost.constant_bytes + cost.state_bytes
    work = (
        (nbytes, ceilings.bytes_per_second),
        (cost.integer_operations, ceilings.integer_operations_per_second),
        (cost.float_operations, ceilings.float_operations_per_second),
    )
    return max((1e6 * amount / rate for amount, rate in work if rate), default=None)


def _values(program: Program, node: Node) -> list[str]:
    return [name for name in (*node.inputs, *node.outputs) if name and name in program.values]


def _row_bytes(value: Value) -> int:
    return value.width * np.dtype(value.dtype).itemsize


def _read_bytes(constant: Constant, times: int) -> int:
    """All of the parts that the iterations read; one row of a table.

    A constant that iterations share is read in each.
    """
    total = sum(part.nbytes for part in constant.parts) * max(1, times // len(constant.parts))
    return total // constant.shape[0] if constant.role == "table" else total


def _weight(program: Program, node: Node) -> Constant:
    roles = OPS[node.op].roles_of(node.inputs)
    return next(program.constants[name] for name, role in roles if name and role == "ternary")


def _width(program: Program, name: str) -> int:
    if name in program.constants:
        return 0
    return program.values[name].width


def meaning(op: Op) -> str:
    """A sentence on what an op computes: the first paragraph of its reference's docstring."""
    return " ".join((op.reference.__doc__ or "").strip().partition("\n\n")[0].split())
