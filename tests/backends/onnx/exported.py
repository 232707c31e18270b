"""Models that torch exports to ONNX, for the tests of importing."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from zoo import DequantizedProj, PackedProj, Proj, TransposedProj

WIDTH, OUT = 24, 16


def _stack(**styles: Any) -> nn.Module:
    first = Proj(WIDTH, OUT, **styles)
    return nn.Sequential(first, nn.SiLU(), Proj(OUT, WIDTH, **styles))


# How a model is written -> what makes it, and the number of its BitLinears.
STYLES: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "rsqrt": (_stack, 2),
    "sqrt, amax, bias": (lambda: _stack(norm="sqrt", quantizer="amax", bias=True), 2),
    "one op": (lambda: _stack(norm="one op", quantizer="max over 127"), 2),
    "power": (lambda: _stack(norm="power", through="none"), 2),
    "sum": (lambda: _stack(norm="sum", quantizer="clamped scale"), 2),
    "unsqueeze": (lambda: _stack(norm="unsqueeze", through="x - x + q"), 2),
    "weight first": (lambda: _stack(norm="weight first", through="none"), 2),
    "product": (lambda: TransposedProj(WIDTH, OUT, bias=True), 1),
    "packed": (lambda: PackedProj(WIDTH, OUT), 1),
    "dequantized": (lambda: DequantizedProj(WIDTH, OUT), 1),
}


class FourLevels(nn.Module):
    """Rows are quantized, but weights are -1, -1/3, 1/3 and 1 times a scale."""

    def __init__(self) -> None:
        super().__init__()
        levels = torch.tensor([-1.0, -1 / 3, 1 / 3, 1.0])
        generator = torch.Generator().manual_seed(0)
        self.matrix = nn.Buffer(levels[torch.randint(4, (OUT, WIDTH), generator=generator)])

    def forward(self, x: Tensor) -> Tensor:
        scale = 127 / x.abs().amax(-1, keepdim=True).clamp(min=1e-5)
        return ((x * scale).round().clamp(-128, 127) / scale) @ self.matrix.t()


def export(module: nn.Module, path: Path, opset: int, dynamo: bool, *inputs: Tensor) -> Path:
    """Export with free leading dimensions, quietly."""
    free = {0: "batch", 1: "time"}
    how: dict[str, Any] = {"dynamic_axes": {"x": free}, "input_names": ["x"]}
    if dynamo:
        how = {"dynamic_shapes": (free,), "verbose": False}
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        with warnings.catch_warnings(action="ignore"), torch.no_grad():
            torch.onnx.export(
                module.eval(),
                inputs or (torch.randn(2, 3, WIDTH),),
                str(path),
                opset_version=opset,
                dynamo=dynamo,
                **how,
            )
    finally:
        logging.disable(level)
    return path


def saved(folder: Path, nodes: list[onnx.NodeProto], **held: np.ndarray) -> Path:
    """A model of these nodes, from x (batch, time, WIDTH) to y."""
    shape: list[str | int | None] = ["batch", "time", WIDTH]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in held.items()],
    )
    opsets = [helper.make_opsetid("", 23), helper.make_opsetid("com.microsoft", 1)]
    path = folder / "model.onnx"
    path.write_bytes(
        helper.make_model(graph, opset_imports=opsets, ir_version=11).SerializeToString()
    )
    return path
