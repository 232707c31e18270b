"""Copies of rows that kernels may not overwrite or cannot write change no result."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from op_modules import mm, runnable_variants
from row_programs import (
    CASES,
    WIDTH,
    Results,
    first,
    loop,
    loop_of_two,
    made,
    programs,
    relu,
    tiles,
)
from special_values import assert_same_bits
from torch import Tensor, nn

import mmfree_compiler as mmf
from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.copy_rows import CopyRows
from mmfree_compiler.backends.cpu.compile.compiler import CpuCompiler
from mmfree_compiler.backends.cpu.run.launcher import CpuLauncher
from mmfree_compiler.backends.cpu.spec import Spec
from mmfree_compiler.backends.interface import Batch
from mmfree_compiler.backends.reference.interpreter import interpret
from mmfree_compiler.errors import MmfreeError
from mmfree_compiler.packaging import Made, package
from mmfree_compiler.program import Loop, Program, Stage
from mmfree_compiler.program_rules import verify
from mmfree_compiler.target import Target

VARIANTS = tuple(dict.fromkeys([runnable_variants()[0], "portable"]))
cases = pytest.mark.parametrize("name", CASES)


def batch_of(program: Program, tokens: int, seed: int = 0) -> Batch:
    random, index = np.random.default_rng(seed), np.arange(tokens)
    shapes = [(tokens, program.values[name].width) for name in program.inputs]
    inputs = tuple(random.standard_normal(shape).astype(np.float32) for shape in shapes)
    return Batch(inputs, np.zeros(tokens, np.int32), index, index)


def assert_close(found: Results, expected: Results) -> None:
    """`expected` is NumPy's, whose sums are rounded in another order."""
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def assert_equal(found: Results, expected: Results) -> None:
    """To the bit."""
    for k, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert_same_bits(torch.from_numpy(a), torch.from_numpy(b), f"output {k}")


# --- the pass ------------------------------------------------------------------------------------


def assert_copied(program: Program) -> None:
    """Valid, the same results to the bit, and as kernels need it."""
    verify(program, "this test")
    copied = CopyRows()(program)
    verify(copied, CopyRows.name)
    steps = [step for step in copied.body if isinstance(step, Stage)]
    by_tiles = [name for step in steps for node in step.tiles for name in node.outputs]
    assert len(copied.outputs) == len(set(copied.outputs))
    assert set(copied.outputs) <= set(by_tiles)
    for step in copied.body:
        if isinstance(step, Loop):
            assert not {initial for initial, _ in step.carried} & set(copied.inputs)
    assert copied.inputs == program.inputs
    widths = [copied.values[name].width for name in copied.outputs]
    assert widths == [program.values[name].width for name in program.outputs]
    again = CopyRows()(copied)
    assert (again.body, again.outputs) == (copied.body, copied.outputs)
    batch = batch_of(program, 4)
    assert_equal(interpret(copied, batch, {}), interpret(program, batch, {}))


@cases
def test_copies_are_valid(name: str) -> None:
    assert_copied(CASES[name].program)


@cases
def test_the_reference_is_right(name: str) -> None:
    """The interpreter, which the kernels are compared with, computes what NumPy does."""
    for program in (CASES[name].program, CopyRows()(CASES[name].program)):
        batch = batch_of(program, 6)
        assert_close(interpret(program, batch, {}), CASES[name].expected(*batch.inputs))


def test_nothing_is_copied_without_need() -> None:
    """What tiles make once, and loops that start from what a stage has made."""
    body = (first, loop("a", "y"), tiles(relu("y", "b"), relu("y", "d")))
    program = made(body, ("d", "b"), ("x",))
    copied = CopyRows()(program)
    assert (copied.body, copied.outputs) == (program.body, program.outputs)
    assert copied.notes[-1].text == "0 inputs and 0 outputs copied"


def test_a_loop_may_not_start_two_values_from_one() -> None:
    """Both would overwrite it."""
    with pytest.raises(MmfreeError, match="starts two values from x"):
        verify(made([loop_of_two("x", "x")], ("p", "q"), ("x",)), "this test")


@given(programs())
def test_copies_of_any_program_are_valid(program: Program) -> None:
    assert_copied(program)


# --- the kernels ---------------------------------------------------------------------------------


def artifact_of(program: Program) -> Artifact:
    compiler, spec = CpuCompiler(), Spec(VARIANTS)
    last = program
    for step in compiler.passes(program, spec):
        last = step(last)
        verify(last, step.name)
    made = Made(Target("cpu"), last, (), compiler.emit(last, spec))
    return package(program, [made], (), "0" * 64, None)


@cache
def compiled(name: str) -> Artifact:
    return artifact_of(CASES[name].program)


@cases
@pytest.mark.parametrize("variant", VARIANTS)
def test_the_cpu_is_right(name: str, variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """One token alone, several, more than a chunk; on one thread and on three."""
    monkeypatch.setenv("MMFREE_VARIANT", variant)
    for threads in (1, 3):
        launcher = CpuLauncher.open(compiled(name), threads)
        for tokens in (1, 2, 150):
            batch = batch_of(CASES[name].program, tokens, seed=tokens)
            before = [rows.copy() for rows in batch.inputs]
            found = launcher.run(batch, launcher.states(1))
            assert_equal(found, interpret(CASES[name].program, batch, {}))
            assert all(map(np.array_equal, before, batch.inputs))


@settings(max_examples=10)
@given(programs())
def test_the_cpu_runs_any_program(program: Program) -> None:
    launcher = CpuLauncher.open(artifact_of(program), 2)
    for tokens in (1, 7):
        batch = batch_of(program, tokens)
        found = launcher.run(batch, launcher.states(1))
        assert_equal(found, interpret(program, batch, {}))


class Tower(nn.Module):
    """A language model that ends in a loop: its logits are copies of the loop's result."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.register_buffer("table", torch.randn(WIDTH, WIDTH, generator=generator))

    def forward(self, ids: Tensor) -> Tensor:
        ones, x = torch.ones(WIDTH), mm.embedding(ids, self.table)
        for _ in range(3):
            h = mm.mlgru_scan(x, mm.sigmoid(mm.rms_norm(x, ones, 1e-6)))
            x = mm.add(x, mm.rms_norm(mm.rms_norm(h, ones, 1e-6), ones, 1e-6))
        out: Tensor = x
        return out


@pytest.mark.parametrize("target", ["reference", f"cpu:{VARIANTS[0]}", "cpu:portable"])
def test_a_language_model_may_end_in_a_loop(target: str) -> None:
    ids = torch.randint(0, WIDTH, (2, 140), generator=torch.Generator().manual_seed(1))
    session = mmf.compile(Tower(), target, example_inputs=(ids[:, :3],)).session
    program = session.artifact.program
    assert program is not None
    assert any(isinstance(step, Loop) for step in program.body)
    expected = Tower()(ids)
    logits, state = session(ids[:, :139])
    assert_same_bits(logits, expected[:, :139], "prefill")
    after = session.prefill(ids[0, :139].numpy())
    for row, begun in ((0, after), (1, state[1])):
        last, _ = session(ids[row : row + 1, 139:], begun)
        assert_same_bits(last, expected[row : row + 1, 139:], f"row {row}")
