"""What the cycle model says of each op, and that it is the projected time of a token."""

from __future__ import annotations

import pytest
import torch
from fpga_programs import facts, program
from test_fpga_timing import COUNTS, timeline
from torch import nn

import mmfree_compiler as mmf
from mmfree_compiler import backends
from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.explained import Profile, Profiler
from mmfree_compiler.backends.fpga.project import project_artifact
from mmfree_compiler.backends.fpga.timing.model import simulate
from mmfree_compiler.backends.fpga.timing.shares import added_cycles
from mmfree_compiler.models import BitLinear, MatMulFreeLM, ModelConfig


def profiled(artifact: Artifact) -> Profile:
    compiler = backends.compiler(backends.get("fpga"))
    assert isinstance(compiler, Profiler)
    return compiler.profile(artifact, None)


def test_an_instruction_adds_what_no_other_covers() -> None:
    """Two units at once: the second is done 10 cycles later than the first."""
    both = timeline("add dst=0 a=2 b=4 n=32\nadd dst=6 a=8 b=4 n=32")
    assert added_cycles(both, 0) == {0: 41, 1: 39}
    text = "add dst=0 a=2 b=4 n=64\nnorm dst=8 a=10 weight=12 eps=14 n=1"
    hidden = timeline(text)
    first, second = hidden.spans
    assert second.start < first.end
    assert added_cycles(hidden, 0) == {0: first.done, 1: max(0, second.done - first.done)}


@pytest.mark.parametrize("role", ["forward", "advance", "decode"])
def test_all_instructions_together_take_the_whole_time(role: str) -> None:
    once, twice = (
        simulate(program(role), facts().board, facts().layout, COUNTS, n) for n in (1, 2)
    )
    assert added_cycles(once, 0).total() == once.cycles
    assert added_cycles(twice, once.cycles).total() == twice.cycles - once.cycles


def test_ops_take_the_projected_time_of_a_token() -> None:
    model = MatMulFreeLM(ModelConfig.of(32, 2, 20)).eval()
    artifact = mmf.compile(model, "fpga:ecp5-85,density=2", check=False).artifact
    found = profiled(artifact)
    figures = {figure.name: figure.value for figure in project_artifact(artifact).figures}
    assert found.decode == pytest.approx(figures["time"] / 1e3)
    assert sum(found.groups.values()) + sum(found.others.values()) == pytest.approx(found.decode)
    assert artifact.program is not None
    assert {group[0] for group in found.groups} == {n.outputs[0] for n in artifact.program.nodes()}
    clock = found.how.removeprefix("by the cycle model at ").removesuffix(" MHz")
    assert figures["cycles"] / (1e6 * float(clock)) == pytest.approx(found.decode)


def test_a_module_that_chooses_no_tokens() -> None:
    layers = nn.Sequential(BitLinear(32, 64), nn.SiLU())
    inputs = (torch.ones(1, 32),)
    found = profiled(mmf.compile(layers, "fpga", example_inputs=inputs, check=False).artifact)
    assert [len(group) for group in found.groups] == [1, 1, 1]
    assert all(seconds > 0 for seconds in found.groups.values())
    assert sum(found.others.values()) > 0  # its input is loaded first
