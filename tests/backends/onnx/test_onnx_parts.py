"""A model taken apart into models of the calls of each node."""

from __future__ import annotations

import re

import numpy as np
import onnx
import pytest
from onnx_sessions import compiled
from op_modules import TinyLM
from test_onnx_launcher import IDS

from mmfree_compiler import backends
from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.explained import Profiler, one_token
from mmfree_compiler.backends.onnx import OnnxBackend
from mmfree_compiler.backends.onnx.compile import profile
from mmfree_compiler.backends.onnx.compile.compiler import OnnxCompiler
from mmfree_compiler.backends.onnx.compile.parts import Parts
from mmfree_compiler.backends.onnx.facts import MODEL
from mmfree_compiler.backends.onnx.run.launcher import OnnxLauncher, Piece, engine_of
from mmfree_compiler.errors import ToolchainError

LAYER = re.compile(r"^layer\d+/")


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Few rounds: no test is about how long anything takes."""
    monkeypatch.setattr(profile, "MOST_SECONDS", 0.0)


@pytest.fixture(scope="module", params=["onnx", "onnx:ms"])
def artifact(request: pytest.FixtureRequest) -> Artifact:
    """The first has its constants outside the model, as above 2 GiB."""
    with pytest.MonkeyPatch.context() as patch:
        if request.param == "onnx":
            patch.setattr(OnnxBackend, "compiler", lambda _: OnnxCompiler(embedded=0))
        return compiled(request.param, TinyLM(), IDS).artifact


def test_parts_make_what_the_whole_does(artifact: Artifact) -> None:
    """Each bit of every value, and each call of a function in one part."""
    (build,) = artifact.entry.builds
    assert artifact.program
    model = artifact.members[build.members[MODEL]]
    parts, launcher = Parts(model, artifact.program), OnnxLauncher.open(artifact, 1)
    token = Piece(np.zeros(1, np.int32), np.zeros((1, 1), np.intp))
    values = launcher.inputs(one_token(artifact), launcher.states(1), token)
    inside = [name for name in parts.read() if name not in values]
    made = engine_of(artifact, parts.showing(inside), 1).run(values, inside)
    values |= dict(zip(inside, made, strict=True))
    called, compared = [], 0
    for name, part, read in parts.each(values):
        graph = onnx.ModelProto.FromString(part.tobytes()).graph
        called += [node.name for node in graph.node]
        assert {LAYER.sub("", node.name) for node in graph.node} == {name}
        outputs = [value.name for value in graph.output]
        found = engine_of(artifact, part, 1).run({row: values[row] for row in read}, outputs)
        for output, array in zip(outputs, found, strict=True):
            if output in values:
                assert np.array_equal(array, values[output])
                compared += 1
    whole = onnx.ModelProto.FromString(model.tobytes()).graph.node
    assert sorted(called) == sorted(node.name for node in whole if node.domain == "mmfree")
    assert compared == len(inside) - sum(name.startswith("Gather") for name in inside)


def test_a_profile_has_all_nodes_once(artifact: Artifact) -> None:
    compiler = backends.compiler(backends.get("onnx"))
    assert isinstance(compiler, Profiler)
    found = compiler.profile(artifact, 2)
    assert artifact.program
    assert list(found.groups) == [node.outputs[:1] for node in artifact.program.nodes()]
    assert sum(found.groups.values()) + sum(found.others.values()) == pytest.approx(found.decode)
    assert found.threads == 2


def test_a_runtime_that_fails(artifact: Artifact, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    def fail(*_: object) -> None:
        raise RuntimeError("out of luck")

    monkeypatch.setattr(onnxruntime.InferenceSession, "run_with_iobinding", fail)
    compiler = backends.compiler(backends.get("onnx"))
    assert isinstance(compiler, Profiler)
    with pytest.raises(ToolchainError, match="ONNX Runtime: fails: out of luck"):
        compiler.profile(artifact, 1)
