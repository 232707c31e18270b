"""ONNX models that somebody changed: each is an error that says what is wrong, or a model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exported import WIDTH, saved
from onnx import TensorProto, helper, numpy_helper
from special_values import Rows

import mmfree_compiler as mmf
from mmfree_compiler.errors import CheckpointError, MmfreeError


def _cyclic(model: onnx.ModelProto) -> None:
    model.graph.node.append(helper.make_node("Add", ["x", "z"], ["w"]))
    model.graph.node.append(helper.make_node("Neg", ["w"], ["z"]))


def _calling_itself(model: onnx.ModelProto) -> None:
    model.functions.append(
        helper.make_function(
            "d",
            "f",
            ["x"],
            ["y"],
            [helper.make_node("f", ["x"], ["y"], domain="d")],
            [helper.make_opsetid("", 23), helper.make_opsetid("d", 1)],
        )
    )


def _exploding(model: onnx.ModelProto) -> None:
    """Each function calls the one before twice: 2^40 nodes."""
    for k in range(40):
        inner = helper.make_node("Neg", ["x"], ["a"])
        outer = helper.make_node("Neg", ["a"], ["y"])
        if k:
            inner, outer = (
                helper.make_node(f"f{k - 1}", [a], [b], domain="d")
                for a, b in (("x", "a"), ("a", "y"))
            )
        imports = [helper.make_opsetid("", 23), helper.make_opsetid("d", 1)]
        model.functions.append(
            helper.make_function("d", f"f{k}", ["x"], ["y"], [inner, outer], imports)
        )
    model.opset_import.append(helper.make_opsetid("d", 1))
    model.graph.node[0].CopyFrom(helper.make_node("f39", ["x"], ["y"], domain="d"))


def _external(location: str) -> Callable[[onnx.ModelProto], None]:
    def change(model: onnx.ModelProto) -> None:
        tensor = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[WIDTH])
        tensor.data_location = TensorProto.EXTERNAL
        tensor.external_data.add(key="location", value=location)
        model.graph.initializer.append(tensor)
        model.graph.node.append(helper.make_node("Add", ["y", "w"], ["z"]))

    return change


def _huge(model: onnx.ModelProto) -> None:
    made = TensorProto(
        name="w", data_type=TensorProto.FLOAT, dims=[1 << 40, 1 << 40], raw_data=b"12"
    )
    model.graph.initializer.append(made)


def _filling_memory(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.array([1 << 30, 1 << 30]), "s"))
    model.graph.node.insert(0, helper.make_node("ConstantOfShape", ["s"], ["w"]))
    model.graph.node.append(helper.make_node("ReduceSum", ["w"], ["r"]))
    model.graph.node[1].CopyFrom(helper.make_node("Add", ["x", "r"], ["y"]))
    model.graph.node[1].CopyFrom(helper.make_node("Identity", ["w"], ["y"]))
    del model.graph.node[2]


def _old(model: onnx.ModelProto) -> None:
    model.opset_import[0].version = 9


def _wide(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 1 << 40


def _unsized(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_param = "width"


def _without_inputs(model: onnx.ModelProto) -> None:
    model.graph.initializer.append(numpy_helper.from_array(np.zeros((1, 1, WIDTH), "f4"), "x"))


def _without_outputs(model: onnx.ModelProto) -> None:
    del model.graph.output[:]


def _doubles(model: onnx.ModelProto) -> None:
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.DOUBLE


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """A model that this package wrote."""
    path = tmp_path_factory.mktemp("ours") / "model.onnx"
    x = torch.randn(2, 3, WIDTH)
    mmf.compile(Rows(WIDTH), "onnx", example_inputs=(x, x), check=False).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("change", ["left out", "dropped", "one more", "another"])
def test_functions_of_ours_that_are_called_otherwise(
    change: str, ours: bytes, tmp_path: Path
) -> None:
    model = onnx.load_from_string(ours)
    found = next(node for node in model.graph.node if node.op_type == "rms_norm")
    model.graph.initializer.append(numpy_helper.from_array(np.ones(7, np.float32), "seven"))
    others = {
        "left out": [""],
        "dropped": [],
        "one more": [found.input[-1]] * 2,
        "another": ["seven"],
    }
    operands = [*found.input[:-1], *others[change]]
    del found.input[:]
    found.input.extend(operands)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    message = f"^node '{found.name}'.*(calls rms_norm|fails)|is not a valid ONNX model"
    with pytest.raises(CheckpointError, match=message):
        mmf.compile(path, "reference", check=False)


def test_a_state_that_is_read_as_a_row(tiny_checkpoint: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    mmf.compile(tiny_checkpoint, "onnx", check=False).save(path)
    model = onnx.load(path)
    node = next(node for node in model.graph.node if node.op_type == "gated_norm")
    node.input[1] = "layer0/mlgru_scan.after"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(
        CheckpointError, match=r"value 'layer0/mlgru_scan\.after': is read as a row"
    ):
        mmf.compile(path, "reference", check=False)


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (_cyclic, "not a valid ONNX model"),
        (_calling_itself, "call each other in a circle"),
        (_exploding, "nodes in its functions"),
        (_external("../secret"), "not a valid ONNX model|not a file in its folder"),
        (_external("/etc/hostname"), "not a valid ONNX model|not a file in its folder"),
        (_external("none"), "not a valid ONNX model|not a file in its folder"),
        (_external(5000 * "x"), "not a valid ONNX model"),
        (_huge, "not a valid ONNX model|cannot be read"),
        (_filling_memory, "makes a tensor of shape"),
        (_old, "uses opset 9"),
        (_wide, "has rows of width 1,099,511,627,776. Export it with a fixed last dimension, from"),
        (_unsized, "no fixed width"),
        (_without_inputs, "has 0 inputs. Export it with rows"),
        (_without_outputs, "returns no rows"),
        (_doubles, "neither rows of float32"),
    ],
)
def test_hostile_models(
    change: Callable[[onnx.ModelProto], None], cause: str, tmp_path: Path
) -> None:
    path = saved(tmp_path, [helper.make_node("Relu", ["x"], ["y"])])
    model = onnx.load(path)
    change(model)
    path.write_bytes(model.SerializeToString())
    with pytest.raises(MmfreeError, match=cause):
        mmf.compile(path, "reference")


def test_other_files(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    with pytest.raises(CheckpointError, match="does not exist"):
        mmf.compile(path, "reference")
    for content in (b"", b"not a model", b"\x0a\xff"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError, match=r"ONNX model|has 0 nodes"):
            mmf.compile(path, "reference")
