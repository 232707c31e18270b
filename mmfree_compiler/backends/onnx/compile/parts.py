"""A model taken apart: for each node of the Program, a model of all its calls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper

from mmfree_compiler.backends.onnx.compile.model import call_names
from mmfree_compiler.backends.onnx.names import DOMAIN
from mmfree_compiler.program import Program

Arrays = Mapping[str, NDArray[Any]]

NOTHING: Arrays = {"x": np.zeros(1, np.float32)}  # what the model that does nothing reads


class Parts:
    """Of an ONNX `model` of `program`, whose calls of functions it leaves as they are."""

    def __init__(self, model: NDArray[np.uint8], program: Program) -> None:
        self._model = onnx.ModelProto.FromString(model.tobytes())
        graph = self._model.graph
        self._constants = {tensor.name: tensor for tensor in graph.initializer}
        self._calls = {node.name: node for node in graph.node if node.domain == DOMAIN}
        self._program = program

    def read(self) -> list[str]:
        """What the calls read besides constants."""
        return _distinct(name for node in self._calls.values() for name in self._rows(node))

    def showing(self, names: Sequence[str]) -> NDArray[np.uint8]:
        """The whole model, with these values as outputs too."""
        shown = onnx.ModelProto()
        shown.CopyFrom(self._model)
        shown.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
        return _bytes(shown)

    def each(self, values: Arrays) -> Iterator[tuple[str, NDArray[np.uint8], list[str]]]:
        """A node's first output, the model of its calls, and which of `values` that reads."""
        for name, calls in call_names(self._program):
            nodes = [self._calls[call] for call in calls]
            rows = _distinct(row for node in nodes for row in self._rows(node))
            yield name, self._of(nodes, {row: values[row] for row in rows}), rows

    def _rows(self, node: onnx.NodeProto) -> list[str]:
        return [name for name in node.input if name and name not in self._constants]

    def nothing(self) -> NDArray[np.uint8]:
        """A model that does as little as one can: it reads NOTHING."""
        return self._of([helper.make_node("Identity", ["x"], ["y"])], NOTHING)

    def _of(self, nodes: Sequence[onnx.NodeProto], inputs: Arrays) -> NDArray[np.uint8]:
        called = {node.op_type for node in nodes}
        read = _distinct(name for node in nodes for name in node.input)
        outputs = [name for node in nodes for name in node.output]
        graph = helper.make_graph(
            nodes,
            "part",
            [_input(name, array) for name, array in inputs.items()],
            [onnx.ValueInfoProto(name=name) for name in outputs],
            [self._constants[name] for name in read if name in self._constants],
        )
        made = helper.make_model(
            graph,
            functions=[f for f in self._model.functions if f.name in called],
            opset_imports=self._model.opset_import,
            ir_version=self._model.ir_version,
        )
        return _bytes(made)


def _input(name: str, array: NDArray[Any]) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(
        name, helper.np_dtype_to_tensor_dtype(array.dtype), array.shape
    )


def _distinct(names: Iterator[str]) -> list[str]:
    """In their order."""
    return list(Counter(names))


def _bytes(model: onnx.ModelProto) -> NDArray[np.uint8]:
    return np.frombuffer(model.SerializeToString(), np.uint8)
