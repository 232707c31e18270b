"""Greedy decoding on the machine: tokens, log probabilities and states of the reference."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from op_modules import SmallLM, mm, ternary
from torch import Tensor, nn

import mmfree_compiler as mmf
from mmfree_compiler.backends.fpga.facts import MOST_STEPS, read_facts
from mmfree_compiler.backends.fpga.run.launcher import FpgaLauncher
from mmfree_compiler.backends.fpga.run.simulator import Simulator
from mmfree_compiler.backends.interface import Batch
from mmfree_compiler.cli.inspect import describe
from mmfree_compiler.errors import InputError, StateError
from mmfree_compiler.runtime import Sampling, Session, State
from mmfree_compiler.runtime.choices import choices

V = 37
IDS = (torch.zeros(1, 2, dtype=torch.int64),)
PROMPTS = [[1, 2, 3], [4], [9, 8], [7, 7, 7, 30], [20]]
GREEDY = Sampling(temperature=0, top_k=3, max_new_tokens=2 * MOST_STEPS + 3, stop_tokens=())


@pytest.fixture(scope="module")
def session() -> Session:
    return mmf.compile(SmallLM(), "fpga:kv260", example_inputs=IDS, check=False).session


@pytest.fixture(scope="module")
def reference() -> Session:
    return mmf.compile(SmallLM(), "reference", example_inputs=IDS, check=False).session


def same_state(a: State, b: State) -> bool:
    found, expected = a.export(), b.export()
    return a.length == b.length and all(np.array_equal(found[k], expected[k]) for k in expected)


@contextmanager
def runs(interrupted: int = -1) -> Iterator[list[int]]:
    """The steps of each run of the machine; Ctrl-C at the end of the run of this number."""
    found: list[int] = []
    real = Simulator.run

    def run(self: Simulator, words: Any, run: Any) -> None:
        real(self, words, run)
        found.append(run.steps)
        if len(found) - 1 == interrupted:
            raise KeyboardInterrupt

    with mock.patch.object(Simulator, "run", run):
        yield found


def test_tokens_and_log_probabilities(session: Session, reference: Session) -> None:
    with runs() as found:
        tokens = list(session.generate(PROMPTS[0], GREEDY))
    assert tokens == list(reference.generate(PROMPTS[0], GREEDY))
    assert found == [1, MOST_STEPS, MOST_STEPS, 2]  # the first token is chosen on the host


def test_the_state_after_each_token(session: Session, reference: Session) -> None:
    ours, theirs = (each.generate(PROMPTS[0], GREEDY) for each in (session, reference))
    for a, b in zip(ours, theirs, strict=True):
        assert a == b
        assert same_state(ours.state, theirs.state)


@pytest.mark.parametrize("index", [1, 4, MOST_STEPS, MOST_STEPS + 1])
def test_a_stop_token(session: Session, reference: Session, index: int) -> None:
    """Wherever in a run it is, the state goes no further."""
    ids = reference.generate(PROMPTS[3], GREEDY, max_new_tokens=index + 1)
    stop = [token.id for token in ids][-1]
    ours, theirs = (
        each.generate(PROMPTS[3], GREEDY, stop_tokens=stop) for each in (session, reference)
    )
    assert list(ours) == list(theirs)
    assert ours.finish_reason == theirs.finish_reason == "stop_token"
    assert same_state(ours.state, theirs.state)


def test_batches(session: Session, reference: Session) -> None:
    """Sequences leave at different times; batches become smaller, and states stay exact."""
    ours, theirs = (
        each.generate_batch(PROMPTS, GREEDY, stop_tokens=range(0, V, 9))
        for each in (session, reference)
    )
    assert len({len(one.ids) for one in ours}) > 2
    for a, b in zip(ours, theirs, strict=True):
        assert (a.tokens, a.finish_reason) == (b.tokens, b.finish_reason)
        assert same_state(a.state, b.state)


@pytest.mark.parametrize("options", [{"temperature": 0.8}, {"repetition_penalty": 1.3}])
def test_other_settings_are_chosen_on_the_host(
    session: Session, reference: Session, options: Any
) -> None:
    with runs() as found:
        ours = list(session.generate(PROMPTS[0], GREEDY, seed=3, **options))
    assert ours == list(reference.generate(PROMPTS[0], GREEDY, seed=3, **options))
    assert found == [1] * GREEDY.max_new_tokens
    first, second = (
        each.generate_batch(PROMPTS[:2], GREEDY, seed=3, **options) for each in (session, reference)
    )
    assert [one.tokens for one in first] == [one.tokens for one in second]


def test_turns(session: Session, reference: Session) -> None:
    """Two generations, and calls, between each other's steps."""

    def turns(each: Session) -> Iterator[tuple[Any, ...]]:
        ones = (each.generate(prompt, GREEDY) for prompt in PROMPTS[:2])
        for a, b in islice(zip(*ones, strict=True), MOST_STEPS + 3):
            yield a, b, each([[a.id, b.id, 1]])[0].tobytes()

    assert list(turns(session)) == list(turns(reference))


@pytest.mark.parametrize("interrupted", [1, 2])
def test_an_interrupted_generation(session: Session, interrupted: int) -> None:
    generation = session.generate(PROMPTS[0], GREEDY)
    with runs(interrupted), pytest.raises(KeyboardInterrupt):
        list(generation)
    assert len(generation.tokens) == 1 + MOST_STEPS * (interrupted - 1)
    with pytest.raises(StateError, match="was interrupted in the middle of a token"):
        next(generation)


@pytest.mark.parametrize("interrupted", [-1, 0, 1])
def test_states_that_a_decoding_leaves(
    session: Session, reference: Session, interrupted: int
) -> None:
    """Those behind the last token that was taken, closed or interrupted; others stay."""
    launcher = session.launcher
    assert isinstance(launcher, FpgaLauncher)
    states = launcher.states(3)
    slots, index = np.array([2, 0], np.int32), np.arange(2)
    settings = choices([GREEDY] * 2, [0, 0], np.zeros((2, V), np.bool_))
    batch = Batch((np.array([5, 6]),), slots, index * 0, index)
    decoding = launcher.decode(batch, settings, states, 50)
    drawn: list[list[int]] = [[], []]
    with runs(interrupted):
        try:
            for step in islice(decoding, MOST_STEPS + 3):
                for ids, token in zip(drawn, step.ids.tolist(), strict=True):
                    ids.append(token)
        except KeyboardInterrupt:
            assert next(decoding, None) is None
    assert len(drawn[0]) == {-1: MOST_STEPS + 3, 0: 0, 1: MOST_STEPS}[interrupted]
    copied = decoding.take([1, 0])
    decoding.close()
    decoding.close()
    found = states.export()
    for name, array in copied.export().items():
        assert np.array_equal(array, found[name][[0, 2]])
        assert not found[name][1].any()
    for slot, start, ids in zip(slots, (5, 6), drawn, strict=True):
        expected = reference.prefill([start, *ids[:-1]]) if ids else reference.zero_state()
        for name, array in expected.export().items():
            assert np.array_equal(found[name][slot], array[0])


def test_logits_that_become_nan(session: Session, reference: Session) -> None:
    messages = []
    for each in (session, reference):
        generation = each.generate(PROMPTS[0], GREEDY)
        next(generation)
        for array in generation._state.states.arrays.values():  # type: ignore[attr-defined]
            array[:] = np.inf
        with pytest.raises(InputError) as caught:
            next(generation)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]
    assert "contain NaN or infinity" in messages[0]


class LargeTable(nn.Module):
    """Reads ids that it never predicts."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.register_buffer("table", torch.randn(V + 9, 24, generator=generator))
        self.register_buffer("head", ternary(V, 24, generator))
        self.register_buffer("one", torch.ones(1))

    def forward(self, ids: Tensor) -> Tensor:
        x = mm.embedding(ids, self.table)
        h = mm.mlgru_scan(x, mm.sigmoid(x))
        return mm.ternary_linear(*mm.quantize(h, 1e-5), self.head, self.one, None)  # type: ignore[no-any-return]


def test_ids_that_are_never_predicted() -> None:
    ours, theirs = (
        mmf.compile(LargeTable(), target, example_inputs=IDS, check=False).session
        for target in ("fpga:ecp5-85", "reference")
    )
    prompt = [V, V + 8, 3]
    assert list(ours.generate(prompt, GREEDY)) == list(theirs.generate(prompt, GREEDY))


class WideTable(nn.Module):
    """Predicts as many tokens as its table is wide."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.zeros(2, 1 << 17)

    def forward(self, ids: Tensor) -> Tensor:
        out: Tensor = mm.embedding(ids, self.table)
        return out


def test_runs_of_wide_logits_have_fewer_steps() -> None:
    """A store's stride has 16 bits: it is the lines of a sequence's logits of all steps."""
    model = mmf.compile(WideTable(), "fpga", example_inputs=IDS, check=False)
    assert read_facts(model.artifact.entry.builds[0]).steps == ((1 << 16) - 1) // (1 << 13)


WITHOUT_TORCH = """
import sys
from mmfree_compiler.runtime import Sampling, load
text = load(sys.argv[1]).generate([1, 2], Sampling(max_new_tokens=3, stop_tokens=(), temperature=0))
print([token.id for token in text])
heavy = {"torch", "tvm", "triton", "tvm_ffi", "rich", "typer"} & sys.modules.keys()
sys.exit(f"imported {heavy}" if heavy else 0)
"""


def test_a_saved_model_runs_with_the_base_install(session: Session, tmp_path: Path) -> None:
    path = tmp_path / "model.mmfree"
    session.artifact.save(path)
    command = [sys.executable, "-c", WITHOUT_TORCH, str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("[")


def test_beside_another_target(tiny_checkpoint: Path) -> None:
    """One file for both; each sees its own constants."""
    both = mmf.compile(tiny_checkpoint, ["cpu:portable", "fpga:kv260"], threads=1)
    ids = np.arange(12).reshape(2, 6)
    first, second = (Session(view)(ids)[0] for view in both.artifact.targets)
    assert np.array_equal(first, second)
    counts = [describe(view, 0)["parameters"] for view in both.artifact.targets]
    assert counts[0] == counts[1]
