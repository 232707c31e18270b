"""What an op is lowered in: the body of its function so far, and where its operands are."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.backends.onnx.compile.graph import Array, Body, Model
from mmfree_compiler.backends.onnx.compile.powers import POWERS, Powers
from mmfree_compiler.backends.onnx.names import REST
from mmfree_compiler.backends.onnx.variants import Variant
from mmfree_compiler.program import Constant, Program, Role


@dataclass(frozen=True)
class Scope:
    """The call of an op called `name`, in the current `layer` of a loop.

    Rows are (batch, time, width) float32; codes are spread, with their sentinels. In the body,
    operands are called as the op's parameters: `parameters` has what each operand is called.
    """

    program: Program
    model: Model
    variant: Variant
    name: str
    layer: int
    graph: Body
    parameters: dict[str, str]
    after: list[str] = field(default_factory=list)  # the state after a scan
    rests: list[str] = field(default_factory=list)  # of codes, the columns in no block
    sizes: dict[str, int] = field(default_factory=dict)  # what importing needs to know

    @property
    def powers(self) -> Powers:
        return POWERS[self.variant.name]

    def __getitem__(self, operand: str | None) -> str:
        """An operand that is a row, or a constant one."""
        assert operand is not None
        called = self.parameters[operand]
        if operand in self.program.constants:
            return self.given(called, self.row(operand))
        return called

    def given(self, called: str, array: Array) -> str:
        """One more input of the function, which this call passes a constant for."""
        self.graph.formals[called] = self.model.operand(array)
        return called

    def tensor(
        self, called: str, kind: int, shape: tuple[int, ...], data: Array, role: Role
    ) -> str:
        """As `given`, of a constant with a name of its own, in any type."""
        name = f"{self.name}/{called}"
        self.graph.formals[called] = self.model.tensor(name, kind, shape, data, role)
        return called

    def rest(self, codes: str | None) -> str:
        """The columns of an operand that are in no block."""
        return rest_of(self[codes])

    def width(self, operand: str | None) -> int:
        assert operand is not None
        return self.program.values[operand].width

    def constant(self, operand: str | None) -> tuple[Constant, int]:
        """A constant, and the number of its part in this layer."""
        assert operand is not None
        constant = self.program.constants[operand]
        return constant, self.layer if len(constant.parts) > 1 else 0

    def row(self, operand: str | None) -> NDArray[np.float32]:
        """A constant that is not packed, as float32."""
        constant, part = self.constant(operand)
        return widened(constant.array(part), constant.dtype)


def rest_of(codes: str) -> str:
    """What the columns of `codes` that are in no block are called."""
    return f"{codes}.{REST}"


def widened(array: Array, dtype: str) -> NDArray[np.float32]:
    """`array` as float32; bfloat16 comes as its bits."""
    if dtype == "bfloat16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)
