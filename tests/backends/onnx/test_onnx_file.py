"""Files of ONNX models: what is written is a standard model, and what is read is checked."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest

import mmfree_compiler as mmf
from mmfree_compiler.artifact import WEIGHTS, Artifact, read_artifact
from mmfree_compiler.backends.files import read, sign, write
from mmfree_compiler.backends.onnx import OnnxBackend
from mmfree_compiler.backends.onnx.compile import model as build
from mmfree_compiler.backends.onnx.compile.compiler import OnnxCompiler
from mmfree_compiler.backends.onnx.variants import VARIANTS
from mmfree_compiler.errors import ArtifactError, TargetError

IDS = np.arange(1, 8)[None]


@pytest.fixture(scope="module", params=["onnx", "onnx:ms"])
def artifact(request: pytest.FixtureRequest, tiny_checkpoint: Path) -> Artifact:
    return mmf.compile(tiny_checkpoint, request.param).artifact


@pytest.fixture(scope="module")
def model(artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("saved") / "model.onnx"
    write(artifact, path)
    return path


@pytest.fixture(scope="module")
def large(tiny_checkpoint: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model whose constants are in a file of their own, as above 2 GiB."""
    path = tmp_path_factory.mktemp("large") / "model.onnx"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(OnnxBackend, "compiler", lambda _: OnnxCompiler(embedded=0))
        mmf.compile(tiny_checkpoint, "onnx").save(path)
    return path


@pytest.fixture
def outside(large: Path, tmp_path: Path) -> Path:
    """A copy of `large`, to be changed."""
    return shutil.copytree(large.parent, tmp_path / "copy") / "model.onnx"


def logits(path: Path) -> np.ndarray:
    made: np.ndarray = mmf.load(path)(IDS)[0]
    return made


def test_it_is_a_model_of_others_too(model: Path, tiny_artifact: Path) -> None:
    """The checker with full shape inference, and ONNX Runtime without this package."""
    onnx.checker.check_model(str(model), full_check=True)
    session = onnxruntime.InferenceSession(str(model))
    state = {"state.mlgru_scan": np.zeros((1, 2, 64), np.float32)}
    made, after = session.run(None, {"tokens": IDS, **state})
    expected, expected_state = mmf.load(tiny_artifact)(IDS)
    assert np.array_equal(made, expected)
    assert np.array_equal(after, expected_state.part("mlgru_scan"))
    keys = session.get_modelmeta().custom_metadata_map
    assert sorted(keys) == ["mmfree.manifest", "mmfree.sha256", "mmfree.tokenizer"]


def test_the_shapes_of_all_values_are_known(model: Path) -> None:
    """Also behind products that ONNX does not define, where inference would stop."""
    inferred = onnx.shape_inference.infer_shapes(onnx.load(model), check_type=True).graph
    known = {
        x.name for x in (*inferred.value_info, *inferred.output) if x.type.HasField("tensor_type")
    }
    made = {name for node in inferred.node for name in node.output if name}
    assert made <= known


def test_it_comes_back(model: Path, artifact: Artifact) -> None:
    loaded = read(model, verify=True)
    assert loaded.manifest == artifact.manifest
    assert loaded.members.keys() == artifact.members.keys()
    for name, data in artifact.members.items():
        assert np.array_equal(loaded.members[name], data)


def test_it_writes_text(model: Path, tiny_artifact: Path) -> None:
    texts = [
        [token.text for token in mmf.load(path).generate("Once", max_new_tokens=8, seed=1)]
        for path in (model, tiny_artifact)
    ]
    assert texts[0] == texts[1]


def test_the_other_form_holds_the_same(model: Path, tmp_path: Path) -> None:
    other = tmp_path / "model.mmfree"
    read(model).save(other)
    assert np.array_equal(logits(other), logits(model))
    again = tmp_path / "again.onnx"
    OnnxBackend().write(read_artifact(other), again)
    assert again.read_bytes() == model.read_bytes()


def test_constants_in_a_file_of_their_own(outside: Path, tiny_artifact: Path) -> None:
    onnx.checker.check_model(str(outside), full_check=True)
    names = sorted(path.name for path in outside.parent.iterdir())
    data = read(outside, verify=True).members[WEIGHTS]
    assert names == [f"{hashlib.sha256(data.tobytes()).hexdigest()[:16]}.weights", "model.onnx"]
    assert np.array_equal(logits(outside), logits(tiny_artifact))
    session = onnxruntime.InferenceSession(str(outside))
    state = {"state.mlgru_scan": np.zeros((1, 2, 64), np.float32)}
    assert np.array_equal(session.run(["logits"], {"tokens": IDS, **state})[0], logits(outside))


def test_a_constant_that_onnx_runtime_does_not_take(
    tiny_checkpoint: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(OnnxBackend, "compiler", lambda _: OnnxCompiler(largest=20_000))
    message = "constant embedding_1/table: has 32,896 bytes; ONNX Runtime takes at most 20,000"
    with pytest.raises(TargetError, match=message):
        mmf.compile(tiny_checkpoint, "onnx", check=False)


def test_data_is_not_in_the_model_while_it_is_built(tiny_checkpoint: Path) -> None:
    """Protocol buffers above 2 GiB cannot even be copied within memory."""
    program = mmf.compile(tiny_checkpoint, "onnx", check=False).program
    made = build.model(program, VARIANTS["standard"])
    held = {tensor.name: tensor.raw_data for tensor in made.proto.graph.initializer}
    assert made.data
    assert not any(held[name] for name in made.data)


def test_a_model_that_was_renamed_finds_its_constants(outside: Path) -> None:
    expected = logits(outside)
    renamed = outside.rename(outside.with_name("other.onnx"))
    assert np.array_equal(logits(renamed), expected)


def test_constants_that_are_missing_or_changed(outside: Path) -> None:
    (data,) = outside.parent.glob("*.weights")
    content = bytearray(data.read_bytes())
    content[-1] ^= 1
    data.write_bytes(content)
    read(outside)
    with pytest.raises(ArtifactError, match=r"weights.bin is damaged \(SHA-256\)"):
        read(outside, verify=True)
    data.write_bytes(content[:-1])
    with pytest.raises(ArtifactError, match="bytes, the manifest says"):
        read(outside)
    data.unlink()
    with pytest.raises(ArtifactError, match="does not exist"):
        read(outside)


def test_a_file_that_changes_while_it_is_used(outside: Path) -> None:
    (data,) = outside.parent.glob("*.weights")
    session = mmf.load(outside)
    data.write_bytes(data.read_bytes())
    with pytest.raises(ArtifactError, match="changed after it was loaded"):
        session(IDS)


def _cut(content: bytes) -> bytes:
    return content[:-7]


def _flipped(content: bytes) -> bytes:
    return content[:1000] + bytes([content[1000] ^ 1]) + content[1001:]


def _renamed(content: bytes) -> bytes:
    return content.replace(b'"producer":"mmfree-compiler', b'"producer":"mmfree-compileR')


def _of_others(content: bytes) -> bytes:
    made = onnx.load_from_string(content)
    del made.metadata_props[:]
    return bytes(made.SerializeToString())


def _rewritten(content: bytes) -> bytes:
    made = onnx.load_from_string(content)
    made.doc_string = "changed"
    return bytes(made.SerializeToString())


@pytest.mark.parametrize(
    ("change", "cause"),
    [
        (_cut, "is not an ONNX model"),
        (_flipped, r"damaged \(SHA-256\)"),
        (_renamed, "its metadata are damaged"),
        (_of_others, "was not made by this package"),
        (_rewritten, "was changed by another"),
        (lambda _: b"", "is empty"),
        (lambda _: b"PK\3\4" + bytes(100), "is not an ONNX model"),
    ],
)
def test_other_files(
    change: Callable[[bytes], bytes], cause: str, model: Path, tmp_path: Path
) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(change(model.read_bytes()))
    with pytest.raises(ArtifactError, match=cause):
        mmf.load(path)


def test_other_places(tmp_path: Path) -> None:
    for path, cause in ((tmp_path / "no.onnx", "not exist"), (tmp_path, "not a regular file")):
        folder = path if path.suffix else path.joinpath("folder.onnx")
        if not path.suffix:
            folder.mkdir()
        with pytest.raises(ArtifactError, match=cause):
            mmf.load(folder)


def test_signatures_are_for_the_other_form(model: Path) -> None:
    with pytest.raises(ArtifactError, match="is not signed"):
        mmf.load(model, require_signature=b"")
    with pytest.raises(ArtifactError, match=r"cannot be signed: \.onnx files have no signatures"):
        sign(model, b"")


def test_targets_that_the_file_cannot_hold(tiny_checkpoint: Path, tmp_path: Path) -> None:
    for target in ("cpu:portable", ("onnx", "cpu:portable")):
        compiled = mmf.compile(tiny_checkpoint, target, check=False)
        with pytest.raises(TargetError, match=r"cpu:portable: is not saved as \.onnx"):
            compiled.save(tmp_path / "model.onnx")
    assert not list(tmp_path.iterdir())
