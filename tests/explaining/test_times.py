"""Times of the ops of a decode step on each target. No test is about how long anything takes."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from explained import compiled, tiny_lm

import mmfree_compiler as mmf
from mmfree_compiler import backends
from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.cpu.compile.compiler import CpuCompiler
from mmfree_compiler.backends.explained import Profile, Rates
from mmfree_compiler.backends.onnx.compile import profile as onnx_profile
from mmfree_compiler.backends.reference import profile as reference_profile
from mmfree_compiler.backends.reference.compiler import ReferenceCompiler
from mmfree_compiler.errors import TargetError, ToolchainError
from mmfree_compiler.explaining import Explanation
from mmfree_compiler.explaining.drawn import ProgramGraph
from mmfree_compiler.explaining.schema import TargetPart

RATES = Rates("of nothing", nbytes=1e9)

Make = Callable[[Artifact], Profile]


@pytest.fixture
def profiled(monkeypatch: pytest.MonkeyPatch) -> Callable[[Make], TargetPart]:
    """A model for the reference target, explained with a profile that a test makes."""

    def explained(make: Make) -> TargetPart:
        monkeypatch.setattr(ReferenceCompiler, "profile", lambda _, artifact, __: make(artifact))
        found = compiled().explain(measure=True)
        assert Explanation.from_json(found.json()) == found
        (part,) = found.targets
        return part

    return explained


def graph(part: TargetPart) -> ProgramGraph:
    assert part.program is not None
    return part.program


def stages(artifact: Artifact) -> list[tuple[str, ...]]:
    assert artifact.program is not None
    return [tuple(node.outputs[0] for node in s.nodes) for s in artifact.program.stages()]


def test_every_op_has_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The times of ops are those of their stages, and with all others those of the step."""
    monkeypatch.setattr(CpuCompiler, "gauge", lambda *_: RATES)
    for module in (onnx_profile, reference_profile):
        monkeypatch.setattr(module, "MOST_SECONDS", 0.0)
    model = mmf.compile(tiny_lm(), ("reference", "onnx", "fpga"), check=False)
    parts = model.explain(measure=True).targets
    for part in parts:
        _check_times(part)
    assert [part.how == "measured" for part in parts] == [True, True, False]
    assert [part.overlapping for part in parts] == [False, False, True]


def _check_times(part: TargetPart) -> None:
    ops = {node.id: node.cost for node in graph(part).nodes if node.stage}
    measured = {name: cost.measured_us or 0.0 for name, cost in ops.items()}
    assert all(cost.measured_us is not None for cost in ops.values())
    assert any(measured.values())
    assert sum(measured.values()) + sum(part.others_us.values()) == pytest.approx(part.decode_us)
    for stage in graph(part).stages:
        inside = [name for each in stage.parts for name in each.nodes]
        alone = [node.id for node in graph(part).nodes if node.stage == stage.id]
        assert inside == (alone if len(alone) > 1 else [])
        assert stage.cost.measured_us == pytest.approx(sum(measured[name] for name in alone))
    assert all(cost.roofline_us is not None for cost in ops.values())
    assert part.roofline_us is not None
    assert part.missing == ()


def test_nodes_that_have_a_time_together(profiled: Callable[[Make], TargetPart]) -> None:
    """A kernel may have some nodes of a stage, and a stage one kernel."""

    def split(artifact: Artifact) -> Profile:
        first, second, *others = stages(artifact)
        groups = {first: 1e-6, second[:2]: 2e-6, second[2:]: 3e-6}
        return Profile(7e-6, groups | dict.fromkeys(others, 0.0), {"all else": 1e-6}, rates=RATES)

    part = profiled(split)
    first, second, *_ = graph(part).stages
    assert (first.cost.measured_us, first.parts) == (1.0, ())
    assert second.cost.measured_us == pytest.approx(5.0)
    assert [p.cost.measured_us for p in second.parts] == pytest.approx([2.0, 3.0])
    assert second.parts[0].title == "norm_quant, ternary_linear"
    assert sum(p.cost.constant_bytes for p in second.parts) == second.cost.constant_bytes
    inside = [node.cost for node in graph(part).nodes if node.stage == second.id]
    assert all(c.measured_us is None and "no time for it alone" in c.reason for c in inside)
    text = compiled().explain().model_copy(update={"targets": (part,)}).text()
    assert "a decode step    7.00 µs measured, at least " in text
    assert "all else" in text


def test_a_stage_without_a_time(profiled: Callable[[Make], TargetPart]) -> None:
    part = profiled(lambda artifact: Profile(1e-6, {stages(artifact)[0]: 1e-6}, rates=RATES))
    first, second, *_ = (stage.cost for stage in graph(part).stages)
    assert first.measured_us == pytest.approx(1.0)
    assert (second.measured_us, second.reason) == (None, "the target has no time for it alone")


@pytest.mark.parametrize("kinds", [(), ("reference",)])
def test_without_anything_that_measures_the_machine(
    kinds: tuple[str, ...],
    profiled: Callable[[Make], TargetPart],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Times are known then, and why there is no roofline."""
    monkeypatch.setattr(backends, "kinds", lambda: kinds)
    part = profiled(lambda artifact: Profile(1e-6, {stages(artifact)[0]: 1e-6}, threads=1))
    assert (part.ceilings, part.roofline_us) == (None, None)
    assert part.missing == ("ceilings: no installed target measures them",)
    assert graph(part).stages[0].cost.measured_us == pytest.approx(1.0)


@pytest.mark.parametrize("error", [TargetError, ToolchainError])
def test_what_cannot_be_measured_here(
    error: type[Exception], profiled: Callable[[Make], TargetPart]
) -> None:
    def fail(_: Artifact) -> Profile:
        raise error("this machine", "has none", "Buy one")

    part = profiled(fail)
    assert part.missing == ("times: not measured: this machine: has none. Buy one",)
    assert {stage.cost.measured_us for stage in graph(part).stages} == {None}
    assert (part.how, part.decode_us, part.others_us) == ("", None, {})
