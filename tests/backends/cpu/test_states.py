"""States as the kernels keep them: taken, overwritten, exported, exchanged with other targets."""

from __future__ import annotations

from functools import cache
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
from golden_cases import GoldenCase, golden_cases
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from op_modules import SmallLM, distinct, runnable_variants

import mmfree_compiler as mmf
from mmfree_compiler.artifact import Artifact, StateEntry
from mmfree_compiler.backends.cpu.run.states import CpuStates
from mmfree_compiler.backends.cpu.strides import LINE, VECTOR, state_places, state_width
from mmfree_compiler.backends.interface import Batch
from mmfree_compiler.backends.numpy_states import NumpyStates
from mmfree_compiler.runtime import Session

RUNNABLE = runnable_variants()
# As in test_model_bits.py, which compiles the same kernels.
TARGETS = (f"cpu:{distinct(RUNNABLE)[0]}", "reference")
Slots = tuple[StateEntry, ...]
Rows = Any  # of States.take and put: a slice, a list, an array

SHAPES = st.lists(st.integers(1, 40), min_size=1, max_size=3).map(tuple)


@st.composite
def slots(draw: st.DrawFn) -> Slots:
    """None, or some; most end in padding."""
    shapes = draw(st.lists(st.tuples(SHAPES, st.integers(1, 3)), max_size=3))
    entries = [
        StateEntry(name=f"s{i}", shape=shape, count=count)
        for i, (shape, count) in enumerate(shapes)
    ]
    return tuple(entries)


def distinct_rows(count: int) -> st.SearchStrategy[Rows]:
    """What NumPy takes as an index of some of `count` rows, each once."""
    orders = st.tuples(st.permutations(range(count)), st.integers(1, count))
    listed = orders.map(lambda order: order[0][: order[1]])
    return st.slices(count) | listed | listed.map(lambda rows: np.array(rows, np.intp) - count)


def any_rows(count: int) -> st.SearchStrategy[Rows]:
    """Also none, and some of them several times."""
    repeated = st.lists(st.integers(-count, count - 1), max_size=5)
    return distinct_rows(count) | repeated.map(lambda rows: np.array(rows, np.intp))


def random_states(entries: Slots, count: int, seed: int) -> NumpyStates:
    random = np.random.default_rng(seed)
    states = NumpyStates.zero(entries, count)
    for array in states.arrays.values():
        array[:] = random.standard_normal(array.shape)
    return states


def on_cpu(states: NumpyStates, entries: Slots) -> CpuStates:
    found = CpuStates.zero(entries, len(states))
    found.put(slice(None), states)
    return found


def assert_equal(found: dict[str, NDArray[np.float32]], expected: dict[str, Any]) -> None:
    assert found.keys() == expected.keys()
    for name, array in found.items():
        assert array.dtype == np.float32
        assert array.shape == expected[name].shape
        assert np.array_equal(array, expected[name])


def padding(entries: Slots) -> NDArray[np.bool_]:
    """Where a sequence's row of floats is padding."""
    ones = NumpyStates.zero(entries, 1)
    for array in ones.arrays.values():
        array[:] = 1
    found: NDArray[np.bool_] = on_cpu(ones, entries).array[0] != 1
    return found


def assert_sound(states: CpuStates, entries: Slots, count: int) -> None:
    """Where kernels expect it, and zero between what it holds."""
    assert len(states) == count
    assert states.array.shape == (count, state_width(entries))
    assert states.array.flags.c_contiguous
    assert states.array.size == 0 or states.array.ctypes.data % LINE == 0
    assert (states.array[:, padding(entries)] == 0).all()


# --- places --------------------------------------------------------------------------------------


@given(slots())
def test_places_hold_each_state_and_no_other(entries: Slots) -> None:
    places = state_places(entries)
    assert list(places) == [entry.name for entry in entries]
    end = 0
    for entry in entries:
        place = places[entry.name]
        assert place.offset == end
        assert place.offset % VECTOR == place.row % VECTOR == 0
        assert place.row - VECTOR < entry.shape[-1] <= place.row
        end += entry.count * int(np.prod(entry.shape[:-1])) * place.row
        assert place.end == end
    assert state_width(entries) == end
    held = sum(entry.count * int(np.prod(entry.shape)) for entry in entries)
    assert (~padding(entries)).sum() == held


# --- take, put, export ---------------------------------------------------------------------------


@given(slots(), st.integers(0, 4))
def test_they_begin_with_zeros(entries: Slots, count: int) -> None:
    states = CpuStates.zero(entries, count)
    assert_sound(states, entries, count)
    assert not states.array.any()
    assert_equal(states.export(), NumpyStates.zero(entries, count).export())


@given(slots(), st.integers(0, 4), st.integers(0, 99))
def test_to_and_from_numpy(entries: Slots, count: int, seed: int) -> None:
    given_states = random_states(entries, count, seed)
    states = on_cpu(given_states, entries)
    assert_sound(states, entries, count)
    assert_equal(states.export(), given_states.arrays)
    back = NumpyStates.zero(entries, count)
    back.put(slice(None), states)
    assert_equal(back.arrays, given_states.arrays)
    again = CpuStates.zero(entries, count)
    again.put(slice(None), back)
    assert np.array_equal(again.array, states.array)


@given(slots(), st.integers(1, 4), st.integers(0, 99), st.data())
def test_taking_copies_sequences(
    entries: Slots, count: int, seed: int, data: st.DataObject
) -> None:
    given_states, rows = random_states(entries, count, seed), data.draw(any_rows(count))
    states = on_cpu(given_states, entries)
    taken, same = states.take(rows), given_states.take(rows)
    assert_sound(taken, entries, len(same))
    assert_equal(taken.export(), same.arrays)
    taken.array[:] = 7
    assert_equal(states.export(), given_states.arrays)


@given(slots(), st.integers(1, 4), st.integers(0, 99), st.data())
def test_putting_overwrites_sequences(
    entries: Slots, count: int, seed: int, data: st.DataObject
) -> None:
    """With those of another CPU launcher, and with those of another target: the same."""
    given_states, rows = random_states(entries, count, seed), data.draw(distinct_rows(count))
    changed = len(np.arange(count)[rows])
    more = random_states(entries, changed, seed + 100)
    expected = given_states.take(slice(None))
    expected.put(rows, more)
    for other in (more, on_cpu(more, entries)):
        states = on_cpu(given_states, entries)
        states.put(rows, other)
        assert_sound(states, entries, count)
        assert_equal(states.export(), expected.arrays)
    assert_equal(more.arrays, random_states(entries, changed, seed + 100).arrays)


@given(slots(), st.integers(1, 4))
def test_an_export_is_a_copy(entries: Slots, count: int) -> None:
    states = on_cpu(random_states(entries, count, 0), entries)
    before = states.array.copy()
    for array in states.export().values():
        array[:] = 7
    assert np.array_equal(states.array, before)


# --- kernels -------------------------------------------------------------------------------------


@cache
def compiled(case: GoldenCase | None) -> Artifact:
    """A golden case, or a tiny model, for both TARGETS."""
    if case is not None:
        return mmf.compile(case.folder, TARGETS).artifact
    ids = torch.zeros(2, 3, dtype=torch.int64)
    targets = (f"cpu:{','.join(RUNNABLE)}", "reference")
    return mmf.compile(SmallLM(), targets, example_inputs=(ids,)).artifact


@cache
def session(case: GoldenCase | None, target: str) -> Session:
    return Session(compiled(case), target=target.partition(":")[0])


@pytest.mark.parametrize("variant", RUNNABLE)
def test_kernels_leave_padding_zero(variant: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MMFREE_VARIANT", variant)
    run = Session(compiled(None), target="cpu")
    assert run.launcher.build == variant
    entries = run.artifact.manifest.states
    assert padding(entries).any()
    states = run.launcher.states(3)
    for count in (1, 2, 70):
        ids, index = np.arange(count) % 37, np.arange(count)
        slots = (index % 2).astype(np.int32)
        run.launcher.run(Batch((ids,), slots, index, index), states)
        assert_sound(states, entries, 3)
    assert states.array[0].any()
    assert states.array[1].any()
    assert not states.array[2].any()


cases = pytest.mark.parametrize("case", golden_cases(), ids=str)
orders = pytest.mark.parametrize("targets", [TARGETS, TARGETS[::-1]], ids=["cpu", "reference"])
PARTS = (0, 11, 12, 25, 33)  # several tokens at once, one alone; target by target, in turn


@cases
@orders
def test_another_target_continues(case: GoldenCase, targets: tuple[str, str]) -> None:
    """There and back, twice: as if one had read all of it."""
    ids = case.golden["input_ids_b2"]
    launchers = [session(case, target).launcher for target in targets]
    states, logits = launchers[0].states(2), []
    for turn, (start, stop) in enumerate(pairwise(PARTS)):
        launcher = launchers[turn % 2]
        moved = launcher.states(2)
        moved.put(slice(None), states)
        assert_equal(moved.export(), states.export())
        tokens = np.arange(2 * (stop - start))
        slots, positions = np.divmod(tokens, stop - start)
        part = ids[:, start:stop].numpy().reshape(-1)
        batch = Batch((part,), slots.astype(np.int32), start + positions, tokens)
        (rows,) = launcher.run(batch, moved)
        logits.append(torch.from_numpy(rows.reshape(2, stop - start, -1).copy()))
        states = moved
    case.assert_logits(torch.cat(logits, 1), "logits_b2", ids)


@cases
@orders
def test_users_may_pass_a_state_of_another_target(
    case: GoldenCase, targets: tuple[str, str]
) -> None:
    ids = case.golden["input_ids_b2"]
    first, second = (session(case, target) for target in targets)
    assert first.artifact.manifest.fingerprint == second.artifact.manifest.fingerprint
    begun, state = first(ids[:, :20])
    called, after = second(ids[:, 20:], state)
    in_place = second.advance(ids[:, 20:], state)
    assert torch.equal(called, in_place)
    assert_equal(state.export(), after.export())
    case.assert_logits(torch.cat([begun, called], 1), "logits_b2", ids)


@settings(max_examples=20)
@given(st.integers(1, 3), st.integers(0, 99))
def test_exchange_is_exact(count: int, seed: int) -> None:
    entries = session(None, TARGETS[0]).artifact.manifest.states
    given_states = random_states(entries, count, seed)
    here, there = (session(None, target).launcher.states(count) for target in TARGETS)
    here.put(slice(None), given_states)
    there.put(slice(None), here)
    assert_equal(there.export(), given_states.arrays)
    here.put(slice(None), here.take(np.zeros(count, np.intp)))
    here.put(slice(None), there)
    assert_equal(here.export(), given_states.arrays)
