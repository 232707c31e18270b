"""What an op is lowered in: the graph so far, and where its operands are."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.backends.onnx.compile.graph import Graph
from mmfree_compiler.backends.onnx.compile.powers import POWERS, Powers
from mmfree_compiler.backends.onnx.variants import Variant
from mmfree_compiler.program import Constant, Program


@dataclass
class Scope:
    """A Program on its way into a graph.

    Rows are (batch, time, width) float32 in the graph; codes are spread, with their sentinels.
    `names` has the graph's name of each value, `states` that of each state before and after the
    call, in the current `layer` of a loop.
    """

    program: Program
    graph: Graph
    variant: Variant
    names: dict[str, str] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    next_states: dict[str, list[str]] = field(default_factory=dict)
    layer: int = 0

    @property
    def powers(self) -> Powers:
        return POWERS[self.variant.name]

    def __getitem__(self, name: str | None) -> str:
        """An operand that is a row, or a constant one."""
        assert name is not None
        if name in self.program.constants:
            return self.graph.operand(self.row(name))
        return self.names[name]

    def width(self, name: str | None) -> int:
        assert name is not None
        return self.program.values[name].width

    def constant(self, name: str | None) -> tuple[Constant, int]:
        """A constant, and the number of its part in this layer."""
        assert name is not None
        constant = self.program.constants[name]
        return constant, self.layer if len(constant.parts) > 1 else 0

    def row(self, name: str | None) -> NDArray[np.float32]:
        """A constant that is not packed, as float32."""
        constant, part = self.constant(name)
        return widened(constant.array(part), constant.dtype)


def widened(array: NDArray[np.generic], dtype: str) -> NDArray[np.float32]:
    """`array` as float32; bfloat16 comes as its bits."""
    if dtype == "bfloat16":
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)
