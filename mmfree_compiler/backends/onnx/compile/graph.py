"""Building an ONNX graph node by node."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mmfree_compiler.program import Role

Array = NDArray[np.generic]
Operand = str | float | tuple[int, ...] | Array | np.generic


class Graph:
    """A graph that grows: a call appends a node and returns the name of its output.

    Operands are names, or constants: arrays, a float (float32), a tuple (a vector of int64). Equal
    constants are stored once. Nodes are named by the current `scope`.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.scope = ""
        self.stored: Counter[Role] = Counter()  # bytes of constants
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._tensors: set[str] = set()

    def __call__(self, op: str, *operands: Operand, **attributes: Any) -> str:
        return self.many(op, 1, *operands, **attributes)[0]

    def many(self, op: str, count: int, *operands: Operand, **attributes: Any) -> tuple[str, ...]:
        """As a call, of an operator with `count` outputs."""
        name = f"{self.scope}/{op}_{len(self.nodes)}"
        outputs = [name] if count == 1 else [f"{name}.{index}" for index in range(count)]
        inputs = [self.operand(operand) for operand in operands]
        self.nodes.append(helper.make_node(op, inputs, outputs, name, **attributes))
        return tuple(outputs)

    def named(self, op: str, output: str, *operands: Operand, **attributes: Any) -> None:
        """As a call, but the output has this name."""
        inputs = [self.operand(operand) for operand in operands]
        self.nodes.append(helper.make_node(op, inputs, [output], output, **attributes))

    def operand(self, operand: Operand) -> str:
        """The name of an operand."""
        if isinstance(operand, str):
            return operand
        if isinstance(operand, float):
            return self._constant(np.float32(operand))
        return self._constant(np.asarray(operand))

    def _constant(self, value: Array | np.generic) -> str:
        array = np.ascontiguousarray(value).reshape(np.shape(value))
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            self._constants[key] = f"constant_{len(self._constants)}"
            self._store(numpy_helper.from_array(array, self._constants[key]), "row")
        return self._constants[key]

    def tensor(self, name: str, kind: int, shape: tuple[int, ...], data: Array, role: Role) -> str:
        """A constant called so, of a type that NumPy may not have: `data` are its bytes.

        A name stands for one constant: `data` is not looked at the second time.
        """
        if name not in self._tensors:
            self._tensors.add(name)
            raw = np.ascontiguousarray(data).tobytes()
            made = TensorProto(name=name, data_type=kind, dims=shape, raw_data=raw)
            self._store(made, role)
        return name

    def _store(self, tensor: onnx.TensorProto, role: Role) -> None:
        self.initializers.append(tensor)
        self.stored[role] += len(tensor.raw_data)
