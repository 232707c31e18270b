"""Measuring the stages of a decode step. No test is about how long anything takes."""

from __future__ import annotations

import pytest
import torch
from torch import nn

import mmfree_compiler as mmf
from mmfree_compiler import backends
from mmfree_compiler.backends.cpu import features
from mmfree_compiler.backends.explained import Gauge, Profiler
from mmfree_compiler.compiled_model import CompiledModel
from mmfree_compiler.errors import TargetError
from mmfree_compiler.models.modules import BitLinear

X = torch.ones(2, 16)


class Sum(nn.Module):
    """Two inputs, and no ternary weight."""

    def forward(self, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
        return torch.relu(x) + y


def compiled(module: nn.Module, *inputs: torch.Tensor) -> CompiledModel:
    return mmf.compile(module, "cpu:portable", example_inputs=inputs, check=False)


def profiler() -> Profiler:
    found = backends.compiler(backends.get("cpu"))
    assert isinstance(found, Profiler)
    return found


@pytest.mark.parametrize("threads", [1, 2])
def test_a_module_of_rows(threads: int) -> None:
    model = compiled(BitLinear(16, 32), X)
    found = profiler().profile(model.artifact, threads)
    stages = [tuple(x.outputs[0] for x in stage.nodes) for stage in model.program.stages()]
    assert list(found.groups) == stages
    assert sum(found.groups.values()) == pytest.approx(found.decode)
    assert found.decode > 0
    assert found.rates is not None
    assert found.rates.integers
    assert found.rates.floats
    assert found.threads == 1  # so few weights


def test_without_ternary_weights() -> None:
    found = profiler().profile(compiled(Sum(), X, X).artifact, 1)
    assert found.rates is not None
    assert found.rates.nbytes is None
    assert found.rates.integers is None
    assert found.rates.floats


def test_the_model_runs_as_before() -> None:
    model = compiled(BitLinear(16, 32), X)
    before = model(X)
    model.explain(measure=True)
    assert torch.equal(model(X), before)


def test_a_build_for_another_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    model = compiled(BitLinear(16, 32), X)
    monkeypatch.setattr(features, "machine_arch", lambda: "riscv64")
    with pytest.raises(TargetError):
        profiler().profile(model.artifact, 1)
    (part,) = model.explain(measure=True).targets
    assert part.runs_here == ""
    assert part.decode_us is None
    assert "not measured" in part.missing[0]


def test_what_bounds_the_machine() -> None:
    """The same functions, for a target that has no kernels of its own; weights may be few."""
    compiler = backends.compiler(backends.get("cpu"))
    assert isinstance(compiler, Gauge)
    rates = compiler.gauge(0, 1)
    assert rates.nbytes
    assert rates.integers
    assert rates.floats
    assert "1 thread" in rates.how
