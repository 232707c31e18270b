"""ONNX Runtime: the model's ternary products as 2-bit MatMulNBits, int8 activations.

The graph has all matrices of the model, each with its own bytes, in the model's order, joined by
additions. Norms, gates and the recurrence are left out, in the peer's favour.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import Step
from benchmarks.shapes import Shape

BITS, BLOCK = 2, 128  # weights that share a scale
INT8 = 4  # accuracy_level: activations are quantized to int8
# The bytes whose four digits are all 1, 2 or 3: codes -1, 0, 1 around the zero point 2.
TERNARY_BYTES = np.array(
    [byte for byte in range(256) if all(byte >> shift & 3 for shift in (0, 2, 4, 6))], np.uint8
)


def prepare(shape: Shape, folder: Path, option: str) -> dict[str, Any]:
    """Write the ONNX graph and its weights beside it, kept for the next time."""
    import onnx

    path = _path(shape, folder)
    if not path.exists():
        path.parent.mkdir(exist_ok=True)
        weights = f"{path.stem}.weights"
        path.with_name(weights).unlink(missing_ok=True)  # onnx appends to what is there
        onnx.save_model(_Graph(shape).model(), path, save_as_external_data=True, location=weights)
    return {"file_bytes": sum(file.stat().st_size for file in path.parent.iterdir())}


def _path(shape: Shape, folder: Path) -> Path:
    return folder / f"{shape.name}-onnx" / "model.onnx"


class _Graph:
    """Collects nodes and initializers."""

    def __init__(self, shape: Shape) -> None:
        self.shape = shape
        self.nodes: list[Any] = []
        self.weights: list[Any] = []
        self.random = np.random.default_rng(0)

    def model(self) -> Any:
        """Inputs x (rows, hidden) and `first`: the head runs for rows from `first` on."""
        from onnx import TensorProto, helper

        x = "x"
        for layer in range(self.shape.layers):
            x = self._layer(f"layer{layer}", x)
        self._add("Slice", [x, "first", self._end()], ["last"])
        logits = self._product("head", "last", self.shape.vocabulary, self.shape.hidden)
        graph = helper.make_graph(
            self.nodes,
            "ternary products",
            [
                helper.make_tensor_value_info("x", TensorProto.FLOAT, ["rows", self.shape.hidden]),
                helper.make_tensor_value_info("first", TensorProto.INT64, [1]),
            ],
            [helper.make_tensor_value_info(logits, TensorProto.FLOAT, None)],
            self.weights,
        )
        domains = [helper.make_opsetid("", 21), helper.make_opsetid("com.microsoft", 1)]
        return helper.make_model(graph, opset_imports=domains, ir_version=10)

    def _layer(self, name: str, x: str) -> str:
        d, ff = self.shape.hidden, self.shape.intermediate
        i, f, g = (self._product(f"{name}.{part}", x, d, d) for part in "ifg")
        gated = self._sum(f"{name}.ifg", self._sum(f"{name}.if", i, f), g)
        o = self._product(f"{name}.o", gated, d, d)
        both = self._product(f"{name}.gate_up", o, 2 * ff, d)
        halves = [f"{name}.gate", f"{name}.up"]
        self._add("Split", [both], halves, axis=1, num_outputs=2)
        return self._product(f"{name}.down", self._sum(f"{name}.glu", *halves), d, ff)

    def _product(self, name: str, x: str, rows: int, columns: int) -> str:
        """`x` times a random ternary (rows, columns) with scales that keep its variance."""
        blocks = columns // BLOCK
        size = (rows, blocks, BLOCK * BITS // 8)
        digits = self.random.integers(len(TERNARY_BYTES), size=size, dtype=np.uint8)
        scales = np.full(rows * blocks, (columns * 2 / 3) ** -0.5, np.float32)
        inputs = [x, self._weight(f"{name}.codes", TERNARY_BYTES[digits])]
        inputs.append(self._weight(f"{name}.scales", scales))
        sizes = {"N": rows, "K": columns, "bits": BITS, "block_size": BLOCK}
        domain = "com.microsoft"
        self._add("MatMulNBits", inputs, [name], domain=domain, accuracy_level=INT8, **sizes)
        return name

    def _sum(self, name: str, a: str, b: str) -> str:
        self._add("Add", [a, b], [name])
        return name

    def _end(self) -> str:
        return self._weight("end", np.array([np.iinfo(np.int64).max]))

    def _weight(self, name: str, values: Any) -> str:
        from onnx import numpy_helper

        self.weights.append(numpy_helper.from_array(values, name))
        return name

    def _add(self, op: str, inputs: list[str], outputs: list[str], **attributes: Any) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(op, inputs, outputs, **attributes))


def open_model(shape: Shape, folder: Path, option: str, threads: int) -> OnnxModel:
    """Open the graph that `prepare` wrote."""
    return OnnxModel(shape, _path(shape, folder), threads)


class OnnxModel:
    """An inference session of `threads` threads."""

    def __init__(self, shape: Shape, path: Path, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3
        # Between runs its threads would spin, and slow down the peer that is measured next.
        options.add_session_config_entry("session.force_spinning_stop", "1")
        providers = ["CPUExecutionProvider"]
        self.session = onnxruntime.InferenceSession(path, options, providers=providers)
        self.hidden = shape.hidden
        self.weight_bytes = sum(_weight_bytes(*size) for size in _matrices(shape))

    @property
    def steps(self) -> dict[str, Callable[[int], Step]]:
        return {
            "decode": lambda batch: self._step(batch, 0),
            "prefill": lambda length: self._step(length, length - 1),
        }

    def _step(self, rows: int, first: int) -> Step:
        x = np.random.default_rng(1).standard_normal((rows, self.hidden), dtype=np.float32)
        inputs = {"x": x, "first": np.array([first])}
        return lambda: self.session.run(None, inputs)


def _matrices(shape: Shape) -> Iterator[tuple[int, int]]:
    for _ in range(shape.layers):
        yield from shape.layer_matrices
    yield shape.vocabulary, shape.hidden


def _weight_bytes(rows: int, columns: int) -> int:
    """2-bit codes, and a float scale for each block."""
    return rows * columns * BITS // 8 + rows * (columns // BLOCK) * 4
