"""Whole models: logits, states and texts have the same bits, whatever runs them and however."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from amx_emulation import is_emulated
from golden_cases import golden_cases
from model_bits import THREADS, WAYS, Texts, digest, ragged_digest, state_within, texts, tokens
from op_modules import distinct, runnable_variants

import mmfree_compiler as mmf
from mmfree_compiler import backends
from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.interface import Tunable
from mmfree_compiler.backends.onnx.file import MEMBER
from mmfree_compiler.errors import TargetError
from mmfree_compiler.runtime import Session

RUNNABLE = runnable_variants()
DEMO = Path(__file__).parents[2] / "demo"
FOLDERS = {str(case): case.folder for case in golden_cases()} | {"demo": DEMO}

folders = pytest.mark.parametrize("folder", FOLDERS.values(), ids=FOLDERS)
# Each variant runs a model with every kind of layer and one of usual size, each other model the
# widest vectors and the narrowest: test_cpu_ops.py and test_row_bits.py have the odd shapes.
ENDS = [distinct(RUNNABLE)[0], distinct(RUNNABLE)[-1]]
VARIANTS = {name: RUNNABLE if name in ("conv_shared", "demo") else ENDS for name in FOLDERS}
on_cpu = pytest.mark.parametrize(
    ("name", "variant"), [(name, variant) for name in FOLDERS for variant in VARIANTS[name]]
)


# What is compiled together, since tracing takes most of the time; an artifact has each kind once.
# The CPU's kernels take longer, and have an artifact of their own.
TOGETHER = (
    ["reference", "fpga", "onnx"],
    ["fpga:kv260,density=2", "onnx:ms"],
    ["fpga:ecp5-85"],
)


@cache
def compiled(folder: Path, targets: tuple[str, ...]) -> Artifact:
    return mmf.compile(folder, targets).artifact


def opened(folder: Path, target: str, **options: Any) -> Session:
    (targets,) = (group for group in TOGETHER if target in group)
    kind = target.partition(":")[0]
    return Session(compiled(folder, tuple(targets)), target=kind, **options)


@cache
def reference(folder: Path) -> Session:
    return opened(folder, "reference")


@cache
def expected(folder: Path) -> str:
    return digest(reference(folder))


@cache
def expected_of_ragged(folder: Path) -> str:
    return ragged_digest(reference(folder), together=False)


@cache
def expected_texts(folder: Path) -> Texts:
    return texts(reference(folder), together=False)


def on_variants(name: str) -> Artifact:
    return compiled(FOLDERS[name], (f"cpu:{','.join(VARIANTS[name])}",))


@on_cpu
@pytest.mark.slow
def test_cpu(name: str, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMFREE_VARIANT", variant)
    artifact = on_variants(name)
    ways = WAYS[-1:] if is_emulated(variant) else WAYS
    for threads in THREADS:
        session = Session(artifact, threads)
        assert session.launcher.build == variant
        for batch, chunk in (way[1:] for way in ways if way[0] == threads):
            how = f"{threads} threads, batch {batch}, chunks of {chunk}"
            assert digest(session, batch, chunk) == expected(FOLDERS[name]), how


def _without_gpu() -> str:
    """Why the CUDA target cannot be run here; empty where it can."""
    try:
        backends.get("cuda").here()
    except TargetError as error:
        return str(error)
    return ""


def assert_same_in_all_ways(
    session: Session, folder: Path, ways: Iterable[tuple[int, int, int]]
) -> None:
    """Chunks, batches, ragged ones, texts, and a state within a generation."""
    for _, batch, chunk in ways:
        how = f"batch {batch}, chunks of {chunk}"
        assert digest(session, batch, chunk) == expected(folder), how
    for together in (True, False):
        assert ragged_digest(session, together) == expected_of_ragged(folder)
        assert texts(session, together) == expected_texts(folder)
    assert state_within(session) == state_within(reference(folder))


@folders
@pytest.mark.slow
@pytest.mark.gpu
@pytest.mark.skipif(bool(_without_gpu()), reason=_without_gpu())
def test_cuda(folder: Path) -> None:
    """On this machine's GPU: chunks, batches, texts, and a state that came from elsewhere."""
    session = mmf.compile(folder, "cuda").session
    assert_same_in_all_ways(session, folder, WAYS)
    ids = tokens(session)[:, :9]
    _, there = reference(folder)(ids)
    (ours, _), (theirs, _) = (run(ids[:, :1], there.fork()) for run in (session, reference(folder)))
    assert np.array_equal(ours, theirs)


@pytest.mark.slow
@pytest.mark.gpu
@pytest.mark.skipif(bool(_without_gpu()), reason=_without_gpu())
def test_cuda_with_other_settings() -> None:
    """The smallest and the largest sizes that `mmfree tune` tries."""
    spec, maker = backends.get("cuda").here(), backends.get("cuda").compiler()
    assert isinstance(maker, Tunable)
    artifact = mmf.compile(DEMO, "cuda", check=False).artifact
    for end in (0, -1):
        settings = {name: values[end] for name, values in maker.candidates(spec).items()}
        session = Session(maker.retuned(artifact, spec, settings))
        for _, batch, chunk in WAYS:
            assert digest(session, batch, chunk) == expected(DEMO), (settings, batch, chunk)


MACHINES = ["fpga", "fpga:kv260,density=2", "fpga:ecp5-85"]


@folders
@pytest.mark.slow
@pytest.mark.parametrize("machine", MACHINES)
def test_fpga(folder: Path, machine: str) -> None:
    """In the simulator, on three boards and with both densities."""
    session = opened(folder, machine)
    assert_same_in_all_ways(session, folder, [way for way in WAYS if way[0] == 1])


def assert_every_value_has_a_type(artifact: Artifact) -> None:
    """ONNX's checker, and its inference of types and shapes, which is strict here."""
    model = onnx.load_from_string(artifact.members[MEMBER].tobytes())
    onnx.checker.check_model(model, full_check=True)
    graph = onnx.shape_inference.infer_shapes(
        model, check_type=True, strict_mode=True, data_prop=True
    ).graph
    kinds = {x.name: x.type.tensor_type for x in (*graph.value_info, *graph.output)}
    made = {output for node in graph.node for output in node.output}
    assert all(kinds[name].elem_type for name in made)
    # ONNX does not know ONNX Runtime's operators, so nothing behind them has a shape.
    if all(opset.domain != "com.microsoft" for opset in model.opset_import):
        assert all(kinds[name].HasField("shape") for name in made)


@folders
@pytest.mark.parametrize("target", ["onnx", "onnx:ms"])
@pytest.mark.slow
def test_onnx(folder: Path, target: str) -> None:
    """With ONNX Runtime's optimizations of graphs and without, in batches of 1 and 3, in steps."""
    for level in ("all", "off"):
        session = opened(folder, target, threads=1, optimizations=level)
        for batch, chunk in ((1, 64), (3, 5)):
            how = f"optimizations {level}, batch {batch}, chunks of {chunk}"
            assert digest(session, batch, chunk) == expected(folder), how
    session = opened(folder, target, threads=2)
    assert_every_value_has_a_type(session.artifact)
    assert ragged_digest(session, together=True) == expected_of_ragged(folder)
    assert texts(session, together=True) == expected_texts(folder)
    assert state_within(session) == state_within(reference(folder))


@folders
@pytest.mark.slow
def test_reference_in_batches(folder: Path) -> None:
    session = reference(folder)
    assert digest(session, batch=1, chunk=5) == expected(folder)
    assert ragged_digest(session, together=True) == expected_of_ragged(folder)
    assert texts(session, together=True) == expected_texts(folder)


@on_cpu
@pytest.mark.slow
def test_ragged_batches_and_texts(name: str, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Padded on the left or alone, in a batch or alone, greedy or with a seed."""
    monkeypatch.setenv("MMFREE_VARIANT", variant)
    session, folder = Session(on_variants(name), threads=2), FOLDERS[name]
    for together in (True, False):
        assert ragged_digest(session, together) == expected_of_ragged(folder)
        assert texts(session, together) == expected_texts(folder)
