"""ONNX models become modules: those of torch's exporters, this package's own, and hostile ones."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from exported import STYLES, WIDTH, export, saved
from onnx import TensorProto, helper
from onnx_sessions import targets
from op_modules import Products, integer_rows
from special_values import Pointwise, Rows
from torch import Tensor

import mmfree_compiler as mmf
from mmfree_compiler.backends.onnx.importing.steps import Call, OpStep
from mmfree_compiler.backends.onnx.variants import VARIANTS
from mmfree_compiler.errors import CheckpointError
from mmfree_compiler.same_bits import same_bits

X = torch.randn(2, 3, WIDTH, generator=torch.Generator().manual_seed(1))


EXPORTERS = ((17, False), (23, True))  # torch's TorchScript and dynamo exporters
# The older exporter does not know rms_norm.
EXPORTED = [
    (name, *how) for name in STYLES for how in EXPORTERS if (name, how[0]) != ("one op", 17)
]


@pytest.mark.parametrize(("style", "opset", "dynamo"), EXPORTED)
def test_models_of_torch(style: str, opset: int, dynamo: bool, tmp_path: Path) -> None:
    torch.manual_seed(0)
    make, count = STYLES[style]
    module = make()
    path = export(module, tmp_path / "model.onnx", opset, dynamo)
    compiled = mmf.compile(path, "reference")
    found = [node.op for node in compiled.program.nodes()]
    assert found.count("ternary_linear") == count
    with torch.no_grad():
        torch.testing.assert_close(compiled(X), module(X), rtol=1e-4, atol=1e-4)


def test_norms_that_are_one_node(tmp_path: Path) -> None:
    """RMSNormalization, and SimplifiedLayerNormalization as ONNX Runtime's tools write it."""
    weight = torch.rand(WIDTH) + 0.5
    for op, domain in (
        ("RMSNormalization", ""),
        ("SimplifiedLayerNormalization", ""),
        ("SimplifiedLayerNormalization", "com.microsoft"),
    ):
        node = helper.make_node(op, ["x", "w"], ["y"], domain=domain, axis=-1, epsilon=1e-6)
        path = saved(tmp_path, [node], w=weight.numpy())
        compiled = mmf.compile(path, "reference")
        assert [n.op for n in compiled.program.nodes()] == ["rms_norm"]
        expected = torch.nn.functional.rms_norm(X, (WIDTH,), weight, 1e-6)
        torch.testing.assert_close(compiled(X), expected)


@targets
def test_our_own_models(target: str, tiny_checkpoint: Path, tmp_path: Path) -> None:
    """Exported and imported, compiled for another target: the same bits, and the tokenizer.

    It is the same model too: its bits can be compared with those of its export.
    """
    path = tmp_path / "model.onnx"
    mmf.compile(tiny_checkpoint, target).save(path)
    imported, direct = mmf.compile(path, "cpu:portable"), mmf.compile(tiny_checkpoint, "reference")
    ids = np.random.default_rng(0).integers(257, size=(3, 20))
    for ours, theirs in zip(imported(ids), direct(ids), strict=True):
        if isinstance(ours, np.ndarray):
            assert np.array_equal(ours, theirs)
    _, state = imported(ids)
    assert [a.tobytes() for a in state.states.export().values()] == [
        a.tobytes() for a in direct(ids)[1].states.export().values()
    ]
    assert same_bits(mmf.load(path), imported.session, 20, 0).passed
    manifests = imported.artifact.manifest, direct.artifact.manifest
    for what in ("model", "fingerprint", "states"):
        assert len({str(getattr(manifest, what)) for manifest in manifests}) == 1
    assert imported.session.tokenizer is not None


@targets
def test_every_op_comes_back(target: str, tmp_path: Path) -> None:
    for module, width in ((Pointwise(), WIDTH), (Rows(WIDTH), WIDTH), (Rows(512), 512)):
        path = tmp_path / "model.onnx"
        x, y = torch.randn(2, 4, width)
        compiled = mmf.compile(module, target, example_inputs=(x, y))
        compiled.save(path)
        for a, b in zip(mmf.compile(path, "reference")(x, y), compiled(x, y), strict=True):
            assert torch.equal(a.nan_to_num(), b.nan_to_num())


@targets
def test_products_come_back(target: str, tmp_path: Path) -> None:
    """Also one whose sentinels replace columns."""
    module, inputs, path = Products(), integer_rows(5), tmp_path / "model.onnx"
    mmf.compile(module, target, example_inputs=tuple(inputs)).save(path)
    made = mmf.compile(path, "reference")(*inputs)
    for a, b in zip(made, module.exact(*inputs), strict=True):
        assert torch.equal(a, b.float())


def test_constants_of_another_layout_are_refused_by_node() -> None:
    named = "node 'first'"
    call = Call("mmfree.norm_quant", ("w",), ("made",), {"groups": 1}, named, ("inners",))
    for wrong in ({"w": torch.ones(WIDTH)}, {}):
        with pytest.raises(CheckpointError, match="node 'first': calls norm_quant"):
            OpStep(call, wrong, VARIANTS["standard"])


def test_all_unknown_operators_are_named(tmp_path: Path) -> None:
    nodes = [
        helper.make_node("NonZero", ["x"], ["a"], "first"),
        helper.make_node("Det", ["x"], ["b"], "second"),
        helper.make_node("Cast", ["a"], ["c"], "third", to=TensorProto.FLOAT),
        helper.make_node("Add", ["b", "c"], ["y"], "fourth"),
    ]
    path = saved(tmp_path, nodes)
    with pytest.raises(CheckpointError, match=r"2 operators: not known:\n.*NonZero \(node 'first'"):
        mmf.compile(path, "reference")
    with pytest.raises(CheckpointError, match=r"Det \(node 'second'\)"):
        mmf.compile(path, "reference")


def test_external_data_is_read(tmp_path: Path) -> None:
    weight = np.arange(WIDTH, dtype=np.float32)
    path = saved(tmp_path, [helper.make_node("Add", ["x", "w"], ["y"])], w=weight)
    onnx.save(onnx.load(path), path, save_as_external_data=True, location="w.bin", size_threshold=0)
    rows: Tensor = mmf.compile(path, "reference")(X)
    assert torch.equal(rows, X + torch.from_numpy(weight))
