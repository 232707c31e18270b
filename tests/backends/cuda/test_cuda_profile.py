"""The times of kernels, and the nodes that they are of. benchmarks/gpu_check.py runs some here."""

from __future__ import annotations

from collections import Counter
from functools import cache

import pytest
from gpu_models import compiled, needs_gpu
from mock_driver import run
from no_gpu import without_code
from test_cuda_launches import OPEN
from triton_process import interpreted

import mmfree_compiler as mmf
from mmfree_compiler import backends
from mmfree_compiler.backends.cuda.compile.planned import PeeledProgram
from mmfree_compiler.backends.cuda.compile.profile import kernels
from mmfree_compiler.backends.cuda.facts import read_facts
from mmfree_compiler.backends.explained import Profiler
from mmfree_compiler.compiled_model import CompiledModel
from mmfree_compiler.models import MatMulFreeLM, ModelConfig

TIMED = (
    OPEN
    + """
from mmfree_compiler.backends.cuda.facts import Kernel as Place
from mmfree_compiler.backends.cuda.run.gpu import Gpu
gpu = Gpu(device)
place = Place(symbol="other", offset=0, size=16, warps=1, shared=0, dependent=True, parameters=[])
gpu.load(np.frombuffer(b"add 8\\nother 8 8", np.uint8), {"k": place})
"""
)


@cache
def without_kernels() -> CompiledModel:
    with without_code():
        model = MatMulFreeLM(ModelConfig.of(32, 2, 20)).eval()
        return mmf.compile(model, "cuda:sm_80,sm_90", check=False)


def test_kernels_run_one_by_one_between_marks() -> None:
    """They do not start early, as they do in a graph without marks."""
    ran = run(
        TIMED
        + """
with gpu.current():
    gpu.recorded(lambda: gpu.launch("k", (2, 1), []))()
    once = lambda gpu: gpu.launch("k", (3, 1), [])
    found = gpu.timed([once, lambda gpu: (once(gpu), once(gpu)), lambda _: None])
    print(found(), found())
"""
    )
    assert ran.printed == ["[0.0025, 0.0025, 0.0025] [0.0025, 0.0025, 0.0025]"]
    early, *runs = ran.of("run")
    assert "attribute" in early
    half = [line.split(" grid ")[0] for line in runs]
    marks = [line.removeprefix("run mark ") for line in half if "mark" in line]
    assert half[:7] == [
        f"run mark {marks[0]}",
        "run other",
        f"run mark {marks[1]}",
        *["run other"] * 2,
        f"run mark {marks[2]}",
        f"run mark {marks[3]}",
    ]
    assert half == half[:7] * 2
    assert not any("attribute" in line for line in runs)
    asked = [line.split()[1:] for line in ran.of("cuEventElapsedTime")]
    assert asked[:3] == [marks[0:2], marks[1:3], marks[2:4]]
    assert set(ran.left.values()) == {0}


def test_the_time_of_work_and_the_limits_of_a_gpu() -> None:
    script = TIMED + 'with gpu.current(): print(gpu.seconds(lambda: print("work")), gpu.limits)'
    ran = run(script)
    limits = "Limits(name='Mock GPU', memory=4916736000000.0, cache=1048576)"
    assert ran.printed == ["work", f"0.0025 {limits}"]
    records = [line for line in ran.calls if line.startswith(("cuEventRecord", "cuEventSync"))]
    assert len(records) == 3
    silent = run(script, MOCK_SILENT="1")
    assert silent.printed[1].endswith("memory=None, cache=0)")


def test_a_gpu_that_is_lost_while_it_is_timed() -> None:
    script = TIMED + "with gpu.current(): print(said(gpu.timed([lambda _: None])))"
    ran = run(script, MOCK_FAIL="cuEventElapsedTime:1:700")
    assert ran.printed[0].startswith("DeviceError: the GPU: ")


def test_a_driver_that_cannot_set_marks_in_graphs() -> None:
    script = TIMED + "with gpu.current(): print(said(gpu.timed, [lambda _: None]))"
    ran = run(script, MOCK_LACKS="cuEventRecordWithFlags")
    assert ran.printed[0].startswith("TargetError: the NVIDIA driver: ")
    assert ran.left["graph"] == 0


def test_the_times_of_a_modules_kernels() -> None:
    """The fake device's launches take 1, 2, 3, ... seconds, marks half a second, all 1000."""
    profile, nodes = interpreted("cuda_models.profiled", "odd")
    assert sorted(x for group in profile.groups for x in group) == sorted(nodes)
    count = len(profile.groups)
    assert list(profile.groups.values()) == [n + 0.5 for n in range(count)]
    assert profile.decode == 1000.0
    assert sum(profile.groups.values()) + sum(profile.others.values()) == profile.decode
    assert profile.rates.nbytes == 1e9
    assert profile.rates.how.startswith("interpreter: memory by its clock")


def test_every_launch_is_of_nodes_of_the_program() -> None:
    """In plans for one token, where kernels are fused, and for many sequences."""
    artifact = without_kernels().artifact
    program = artifact.program
    assert isinstance(program, PeeledProgram)
    nodes = Counter(node.outputs[0] for node in program.nodes())
    for build in artifact.entry.builds:
        plans = [plan for plan in read_facts(build).plans if not plan.together]
        assert all(Counter(x for g in kernels(program, p) for x in g) == nodes for p in plans)
        assert len(kernels(program, plans[0])) < len(kernels(program, plans[-1]))
        with pytest.raises(AssertionError, match="no schedule has the launches"):
            kernels(program, plans[0].model_copy(update={"steps": plans[0].steps[:-1]}))


def test_without_a_gpu() -> None:
    """Why there are no times is said; the ceilings stay those of the usual card."""
    if not needs_gpu.args[0]:
        pytest.skip("there is a GPU here")
    (part,) = without_kernels().explain(measure=True).targets
    assert part.decode_us is None
    assert part.missing[0].startswith("times: not measured: this machine: has no ")
    assert part.ceilings is not None
    assert "A100" in part.ceilings.how


@pytest.mark.gpu
@needs_gpu
def test_the_times_of_the_demo_on_this_gpu() -> None:
    """Every node has one, and the model gives the same bits afterwards."""
    import torch

    model, ids = compiled(), torch.arange(6)[None]
    before = model(ids)[0]
    compiler = backends.compiler(backends.get("cuda"))
    assert isinstance(compiler, Profiler)
    found = compiler.profile(model.artifact, None)
    nodes = {node.outputs[0] for node in model.program.nodes()}
    assert {name for group in found.groups for name in group} == nodes
    assert all(seconds >= 0 for seconds in found.groups.values())
    assert sum(found.groups.values()) > 0
    assert sum(found.groups.values()) + sum(found.others.values()) == pytest.approx(found.decode)
    assert found.rates is not None
    assert torch.equal(model(ids)[0], before)
    print(model.explain(measure=True))
