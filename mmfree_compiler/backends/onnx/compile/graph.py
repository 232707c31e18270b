"""Building ONNX graphs node by node: a model of calls of functions, and the functions' bodies."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from mmfree_compiler.backends.onnx.names import DOMAIN, function_name
from mmfree_compiler.program import Role

Array = NDArray[np.generic]
Operand = str | float | tuple[int, ...] | Array | np.generic


class Graph(ABC):
    """Nodes, one after another: a call appends one and returns the name of its output.

    Operands are names, or constants: arrays, a float (float32), a tuple (a vector of int64). Equal
    constants are there once.
    """

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self._constants: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def __call__(self, op: str, *operands: Operand, **attributes: Any) -> str:
        return self.many(op, 1, *operands, **attributes)[0]

    def many(self, op: str, count: int, *operands: Operand, **attributes: Any) -> tuple[str, ...]:
        """As a call, of an operator with `count` outputs."""
        name = f"{op}_{len(self.nodes)}"
        outputs = [name] if count == 1 else [f"{name}.{index}" for index in range(count)]
        self.add(op, name, operands, outputs, **attributes)
        return tuple(outputs)

    def add(
        self,
        op: str,
        name: str,
        operands: Sequence[Operand],
        outputs: Sequence[str],
        **attributes: Any,
    ) -> None:
        """Append a node of this name with these outputs."""
        inputs = [self.operand(operand) for operand in operands]
        self.nodes.append(helper.make_node(op, inputs, outputs, name, **attributes))

    def operand(self, operand: Operand) -> str:
        """The name of an operand."""
        if isinstance(operand, str):
            return operand
        value = np.asarray(np.float32(operand) if isinstance(operand, float) else operand)
        key = (value.dtype.str, value.shape, value.tobytes())
        if key not in self._constants:
            self._constants[key] = f"constant_{len(self._constants)}"
            self._store(numpy_helper.from_array(value, self._constants[key]))
        return self._constants[key]

    @abstractmethod
    def _store(self, tensor: onnx.TensorProto) -> None:
        """Keep a constant under the tensor's name."""


class Body(Graph):
    """The body of a function, of `formals`: its inputs by name, and what a call passes for them."""

    def __init__(self, formals: Mapping[str, str]) -> None:
        super().__init__()
        self.formals = dict(formals)
        self._literals: list[onnx.NodeProto] = []

    def _store(self, tensor: onnx.TensorProto) -> None:
        self._literals.append(helper.make_node("Constant", [], [tensor.name], value=tensor))

    def function(
        self, name: str, outputs: Sequence[str], attributes: Sequence[str], opsets: Sequence[Any]
    ) -> onnx.FunctionProto:
        nodes = [*self._literals, *self.nodes]
        inputs = list(self.formals)
        return helper.make_function(
            DOMAIN, name, inputs, list(outputs), nodes, opsets, attributes=list(attributes)
        )


class Model(Graph):
    """The graph of a model: its constants are `initializers`, its `functions` are there once.

    `data` has the bytes of tensors, by name, which may be more than protocol buffers can hold.
    """

    def __init__(self, opsets: Sequence[Any]) -> None:
        super().__init__()
        self.opsets = opsets
        self.initializers: list[onnx.TensorProto] = []
        self.functions: list[onnx.FunctionProto] = []
        self.data: dict[str, Array] = {}
        self.stored: Counter[Role] = Counter()  # bytes of constants
        self._known: dict[tuple[str, bytes], str] = {}
        self._versions: Counter[str] = Counter()

    def _store(self, tensor: onnx.TensorProto) -> None:
        self.initializers.append(tensor)
        self.stored["row"] += len(tensor.raw_data)

    def tensor(self, name: str, kind: int, shape: tuple[int, ...], data: Array, role: Role) -> str:
        """A constant called so, of a type that NumPy may not have: `data` are its bytes.

        A name stands for one constant: `data` is not looked at the second time.
        """
        if name not in self.data:
            self.data[name] = np.ascontiguousarray(data)
            self.initializers.append(TensorProto(name=name, data_type=kind, dims=shape))
            self.stored[role] += data.nbytes
        return name

    def call(
        self,
        op: str,
        name: str,
        body: Body,
        results: Sequence[str],
        outputs: Sequence[str],
        attributes: Mapping[str, Any],
    ) -> None:
        """Append a call of the function of this body, which returns its values `results`."""
        anonymous = body.function("", results, list(attributes), self.opsets)
        key = op, anonymous.SerializeToString(deterministic=True)
        if key not in self._known:
            self._known[key] = anonymous.name = function_name(op, self._versions[op])
            self._versions[op] += 1
            self.functions.append(anonymous)
        inputs = list(body.formals.values())
        self.add(self._known[key], name, inputs, outputs, domain=DOMAIN, **attributes)
