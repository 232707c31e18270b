"""Messages about imported models name the node of the file and its operator."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from exported import WIDTH, FourLevels, export, saved
from onnx import NodeProto, helper

import mmfree_compiler as mmf
from mmfree_compiler.errors import (
    CheckpointError,
    InputError,
    MmfreeError,
    TraceError,
    UnsupportedError,
)

ROWS = np.ones((3, WIDTH), np.float32)


def _of(op: str, *operands: str, **attributes: Any) -> NodeProto:
    """A node whose name no submodule can have."""
    return helper.make_node(op, ["x", *operands], ["y"], "/layers.0/it", **attributes)


@pytest.mark.parametrize(
    ("node", "held", "kind", "message"),
    [
        (
            _of("MatMul", "w"),
            {"w": np.eye(WIDTH, dtype=np.float32) / 3 + 1},
            UnsupportedError,
            r"a float linear layer\) in node '/layers.0/it' \(MatMul\)\n",
        ),
        (_of("Softmax"), {}, UnsupportedError, r"in node '/layers.0/it' \(Softmax\)\n"),
        (_of("Add", "w"), {"w": ROWS}, TraceError, r"^node '/layers.0/it' \(Add\): holds for some"),
        (
            _of("Reshape", "w"),
            {"w": np.array([-1, 7])},
            CheckpointError,
            r"^node '/layers.0/it' \(Reshape\): fails: RuntimeError",
        ),
        (_of("Det"), {}, CheckpointError, r"Det \(node '/layers.0/it'\)"),
    ],
    ids=["unsupported", "no lowering", "sizes", "shapes", "unknown"],
)
def test_errors(
    node: NodeProto, held: dict[str, Any], kind: type[MmfreeError], message: str, tmp_path: Path
) -> None:
    path = saved(tmp_path, [node], **held)
    with pytest.raises(kind, match=message) as error:
        mmf.compile(path, "reference")
    assert ".py" not in str(error.value)


def test_a_node_without_a_name_is_called_by_what_it_makes(tmp_path: Path) -> None:
    path = saved(tmp_path, [helper.make_node("Softmax", ["x"], ["y"])])
    with pytest.raises(UnsupportedError, match=r"in node 'y' \(Softmax\)\n"):
        mmf.compile(path, "reference")


def test_another_number_of_inputs(tmp_path: Path) -> None:
    path = saved(tmp_path, [helper.make_node("Sigmoid", ["x"], ["y"])])
    x = torch.ones(2, 3, WIDTH)
    with pytest.raises(InputError, match="are 2 tensors; the model has 1 input"):
        mmf.compile(path, "reference", example_inputs=(x, x))


def test_programs_know_their_nodes(tmp_path: Path) -> None:
    """Which is what later messages name: of backends, and of the comparison with the module."""
    node = _of("RMSNormalization", "w", axis=-1, epsilon=1e-6)
    path = saved(tmp_path, [node, helper.make_node("Sigmoid", ["y"], ["z"])], w=ROWS[0])
    compiled = mmf.compile(path, "reference", check=False)
    found = [one.source for one in compiled.program.nodes()]
    assert found == ["node '/layers.0/it' (RMSNormalization)"]


@pytest.mark.parametrize("dynamo", [False, True])
def test_four_levels_are_refused_by_name(dynamo: bool, tmp_path: Path) -> None:
    path = export(FourLevels(), tmp_path / "model.onnx", 18, dynamo)
    message = r"its weight has 4 distinct values\) in node '\S*' \(MatMul\)\n"
    with pytest.raises(UnsupportedError, match=message):
        mmf.compile(path, "reference")
