"""Outputs of any tokens of a batch: the rows that running with all tokens wanted gives."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from op_modules import SmallLM, mm, runnable_variants
from torch import Tensor, nn

import mmfree_compiler as mmf
from mmfree_compiler.backends.cpu.compile.codegen import CHUNK
from mmfree_compiler.backends.cpu.run.launcher import CpuLauncher
from mmfree_compiler.backends.cpu.run.wanted import wanted_last
from mmfree_compiler.backends.interface import Batch

VOCABULARY, WIDTH = 37, 24
SLOTS = 4
# Around the ends of a kernel's chunk of tokens, and anything else.
COUNTS = st.integers(1, 2 * CHUNK + 30) | st.sampled_from(
    [1, CHUNK - 1, CHUNK, CHUNK + 1, 2 * CHUNK - 1, 2 * CHUNK, 2 * CHUNK + 1]
)


@st.composite
def batches(draw: st.DrawFn, counts: st.SearchStrategy[int] = COUNTS) -> Batch:
    """Ragged sequences that follow each other or take turns; inputs number the tokens."""
    random = np.random.default_rng(draw(st.integers(0, 1 << 32)))
    count, slots = draw(counts), draw(st.integers(1, SLOTS))
    of = random.permutation(SLOTS)[random.integers(slots, size=count)].astype(np.int32)
    if draw(st.booleans()):
        of = of[np.argsort(of, kind="stable")]
    positions = random.integers(1000, size=SLOTS)[of]
    for slot in range(SLOTS):
        positions[of == slot] += np.arange((of == slot).sum())
    wanted = draw(st.sampled_from([_none, _all, _one, _last, _some, _some, _few]))
    return Batch((np.arange(count),), of, positions, wanted(random, of))


def _none(_: np.random.Generator, slots: NDArray[np.int32]) -> NDArray[np.intp]:
    return np.arange(len(slots))[:0]


def _all(_: np.random.Generator, slots: NDArray[np.int32]) -> NDArray[np.intp]:
    return np.arange(len(slots))


def _one(random: np.random.Generator, slots: NDArray[np.int32]) -> NDArray[np.intp]:
    return random.integers(len(slots), size=1)


def _last(_: np.random.Generator, slots: NDArray[np.int32]) -> NDArray[np.intp]:
    return np.sort([np.flatnonzero(slots == slot)[-1] for slot in np.unique(slots)])


def _some(random: np.random.Generator, slots: NDArray[np.int32]) -> NDArray[np.intp]:
    return np.flatnonzero(random.random(len(slots)) < random.random())


def _few(random: np.random.Generator, slots: NDArray[np.int32]) -> NDArray[np.intp]:
    return np.unique(random.integers(len(slots), size=3))


# --- the order -----------------------------------------------------------------------------------


@given(batches())
def test_wanted_tokens_come_last_and_time_is_kept(batch: Batch) -> None:
    moved, first, found = wanted_last(batch)
    (order,) = moved.inputs
    assert np.array_equal(np.sort(order), np.arange(len(batch.slots)))
    assert np.array_equal(moved.slots, batch.slots[order])
    assert np.array_equal(moved.positions, batch.positions[order])
    for slot in range(SLOTS):
        assert (np.diff(moved.positions[moved.slots == slot]) > 0).all()
    made = order[first:]
    assert np.array_equal(made if found is None else made[found], batch.wanted)


@given(batches())
def test_no_others_are_made_where_no_time_is_against_it(batch: Batch) -> None:
    """Others may be made only where a sequence has a wanted token before one that is not."""
    total = len(batch.slots)
    wanted = np.isin(np.arange(total), batch.wanted)
    ends = [wanted[batch.slots == slot] for slot in range(SLOTS)]
    if all((np.diff(end.astype(int)) >= 0).all() for end in ends):
        _, first, found = wanted_last(batch)
        assert (first, found) == (total - len(batch.wanted), None)


def test_a_batch_in_order_is_not_copied() -> None:
    index = np.arange(5)
    batch = Batch((index,), np.zeros(5, np.int32), index, index[3:])
    moved, first, found = wanted_last(batch)
    assert moved is batch
    assert (first, found) == (3, None)


# --- the kernels ---------------------------------------------------------------------------------


class Rows(nn.Module):
    """Not a language model: two outputs of different widths, states, an output that is copied."""

    def forward(self, x: Tensor, y: Tensor) -> list[Tensor]:
        h = mm.mlgru_scan(x, mm.sigmoid(x))
        return [mm.add(h, mm.short_conv(x, torch.ones(WIDTH, 3), None)), mm.relu(y), y]


def _open(module: nn.Module, variant: str, *inputs: Tensor) -> CpuLauncher:
    artifact = mmf.compile(module, f"cpu:{variant}", example_inputs=inputs).artifact
    return CpuLauncher.open(artifact, threads=2)


@pytest.fixture(scope="module", params=sorted({*runnable_variants()[:1], "portable"}))
def language_model(request: pytest.FixtureRequest) -> CpuLauncher:
    return _open(SmallLM(), request.param, torch.zeros(2, 3, dtype=torch.int64))


@pytest.fixture(scope="module")
def row_module() -> CpuLauncher:
    x, y = torch.zeros(2, 3, WIDTH), torch.zeros(2, 3, 5)
    return _open(Rows(), runnable_variants()[0], x, y)


def assert_rows_are_those_of_all(launcher: CpuLauncher, batch: Batch) -> None:
    """Bit by bit; and the states do not depend on what is wanted."""
    everything = replace(batch, wanted=np.arange(len(batch.slots)))
    before = launcher.states(SLOTS)
    launcher.run(_warm_up(batch), before)
    after, expected_after = before.take(slice(None)), before.take(slice(None))
    found, expected = launcher.run(batch, after), launcher.run(everything, expected_after)
    for rows, all_rows in zip(found, expected, strict=True):
        assert rows.dtype == np.float32
        assert np.array_equal(rows, all_rows[batch.wanted])
    assert np.array_equal(after.array, expected_after.array)


def _warm_up(batch: Batch) -> Batch:
    """A token of each sequence, so that states begin elsewhere than at zero."""
    inputs = tuple(np.repeat(rows[:1], SLOTS, axis=0) for rows in batch.inputs)
    index = np.arange(SLOTS)
    return Batch(inputs, index.astype(np.int32), 0 * index, index)


@settings(max_examples=60)
@given(batch=batches())
def test_logits_of_any_tokens(language_model: CpuLauncher, batch: Batch) -> None:
    (index,) = batch.inputs
    ids = np.random.default_rng(len(index)).integers(VOCABULARY, size=len(index))
    assert_rows_are_those_of_all(language_model, replace(batch, inputs=(ids,)))


@settings(max_examples=60)
@given(batch=batches())
def test_rows_of_any_tokens(row_module: CpuLauncher, batch: Batch) -> None:
    random, count = np.random.default_rng(len(batch.slots)), len(batch.slots)
    inputs = (
        random.standard_normal((count, WIDTH)).astype(np.float32),
        random.standard_normal((count, 5)).astype(np.float32),
    )
    assert_rows_are_those_of_all(row_module, replace(batch, inputs=inputs))


@pytest.mark.parametrize("count", [1, 2, CHUNK, CHUNK + 1, 2 * CHUNK + 1])
def test_each_token_of_a_sequence_alone(language_model: CpuLauncher, count: int) -> None:
    ids = np.random.default_rng(0).integers(VOCABULARY, size=count)
    index, slots = np.arange(count), np.full(count, 2, np.int32)
    (expected,) = language_model.run(Batch((ids,), slots, index, index), language_model.states(3))
    for token in range(count):
        batch = Batch((ids,), slots, index, index[token : token + 1])
        (found,) = language_model.run(batch, language_model.states(3))
        assert np.array_equal(found, expected[token : token + 1])
