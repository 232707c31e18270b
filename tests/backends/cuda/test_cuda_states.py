"""States in an arena, and batches cut into calls: on a device of this process's memory."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from interpreted import InterpretedExecutor

from mmfree_compiler.artifact import StateEntry
from mmfree_compiler.backends.cuda.facts import Plan, Space
from mmfree_compiler.backends.cuda.run.calls import INDICES, Call, calls
from mmfree_compiler.backends.cuda.run.states import FIRST_ROWS, CudaStates, StateArena
from mmfree_compiler.backends.cuda.strides import CHUNK, OUTPUTS
from mmfree_compiler.backends.interface import Batch
from mmfree_compiler.backends.numpy_states import NumpyStates

SLOTS = [StateEntry(name="h", shape=(5,), count=3), StateEntry(name="taps", shape=(4, 6))]


@pytest.fixture
def arena() -> StateArena:
    return StateArena(InterpretedExecutor(ModuleType("no kernels")), SLOTS)


def numbers(count: int) -> NumpyStates:
    """States whose values all differ."""
    random = np.random.default_rng(count)
    shapes = {slot.name: (count, slot.count, *slot.shape) for slot in SLOTS}
    arrays = {name: random.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    return NumpyStates(arrays, count)


def uploaded(arena: StateArena, states: NumpyStates) -> CudaStates:
    found = CudaStates.zero(arena, len(states))
    found.put(slice(None), states)
    return found


def assert_equal(states: CudaStates, others: NumpyStates) -> None:
    assert len(states) == len(others)
    for name, array in states.export().items():
        assert np.array_equal(array, others.arrays[name])


def test_new_states_are_zero_in_rows_that_were_used(arena: StateArena) -> None:
    used = uploaded(arena, numbers(3)).rows.tolist()
    states = CudaStates.zero(arena, FIRST_ROWS)
    assert set(used) <= set(states.rows.tolist())
    assert_equal(states, NumpyStates.zero(SLOTS, FIRST_ROWS))


def test_states_come_and_go(arena: StateArena) -> None:
    expected = numbers(4)
    states = uploaded(arena, expected)
    assert_equal(states, expected)
    assert_equal(states.take([2, 0]), expected.take([2, 0]))
    states.put([1], numbers(1))
    expected.put([1], numbers(1))
    assert_equal(states, expected)


def test_a_copy_is_another_state(arena: StateArena) -> None:
    states = uploaded(arena, numbers(2))
    copy = states.take(slice(None))
    copy.put([0], numbers(1))
    assert_equal(states, numbers(2))


def test_an_arena_grows_and_keeps_its_states(arena: StateArena) -> None:
    first = uploaded(arena, numbers(2))
    assert arena.moves == 0
    more = uploaded(arena, numbers(3 * FIRST_ROWS))
    assert arena.moves > 0
    assert_equal(first, numbers(2))
    assert_equal(more, numbers(3 * FIRST_ROWS))


def test_rows_are_used_again(arena: StateArena) -> None:
    for _ in range(5 * FIRST_ROWS):
        CudaStates.zero(arena, 2)
    assert arena.moves == 0


def test_a_model_without_states() -> None:
    arena = StateArena(InterpretedExecutor(ModuleType("no kernels")), [])
    states = CudaStates.zero(arena, 3 * FIRST_ROWS)
    assert len(set(states.rows.tolist())) == 3 * FIRST_ROWS
    assert states.export() == {}


def batch(rows: list[int], wanted: list[int]) -> Batch:
    slots = np.array(rows, np.int32)
    return Batch((np.arange(len(rows)),), slots, np.zeros(len(rows), np.int64), np.array(wanted))


def test_the_tokens_of_a_sequence_follow_each_other() -> None:
    """Sequences that are mixed are sorted, and what is wanted is found where it went."""
    made = batch([7, 2, 7, 7, 2], [2, 4])
    (call,) = calls(made, made.inputs, made.slots, CHUNK)
    assert np.asarray(call.inputs[0]).tolist() == [1, 4, 0, 2, 3]
    sizes: dict[Space, int] = {"starts": 4, "wanted": 2, "slots": 5, "targets": 5, "counts": 2}
    packed = call.indices()
    found = {name: packed[INDICES[name] :][:size].tolist() for name, size in sizes.items()}
    assert found == {
        "starts": [0, 2, 5, 5],  # sequences that there are not have no tokens
        "wanted": [3, 1],
        "slots": [2, 2, 7, 7, 7],
        "targets": [2, 2, 7, 7, 7],
        "counts": [5, 2],
    }
    assert call.counts == {"tokens": 5, "wanted": 2, "sequences": 2}


def test_tokens_that_are_not_mixed_stay_where_they_are() -> None:
    made = batch([7, 7, 2, 5, 5], [0])
    (call,) = calls(made, made.inputs, made.slots, CHUNK)
    assert call.rows.tolist() == [7, 7, 2, 5, 5]
    assert call.counts["sequences"] == 3


def test_long_batches_are_cut() -> None:
    made = batch([0] * (2 * CHUNK + 3), [0, CHUNK - 1, CHUNK, 2 * CHUNK + 2])
    found = list(calls(made, made.inputs, made.slots, CHUNK))
    assert [len(call.rows) for call in found] == [CHUNK, CHUNK, 3]
    assert [call.wanted.tolist() for call in found] == [[0, CHUNK - 1], [0], [2]]
    assert [np.asarray(call.inputs[0])[0] for call in found] == [0, CHUNK, 2 * CHUNK]


def test_batches_with_many_outputs_are_cut() -> None:
    """Before the first token whose outputs would be too many."""
    made = batch([0] * (OUTPUTS + 7), list(range(3, OUTPUTS + 7)))
    found = list(calls(made, made.inputs, made.slots, CHUNK))
    assert [len(call.rows) for call in found] == [OUTPUTS + 3, 4]
    assert [len(call.wanted) for call in found] == [OUTPUTS, 4]


@pytest.mark.parametrize(
    ("rows", "tokens", "together", "fits"),
    [
        ([3], 1, False, True),
        ([3, 4], 1, False, False),
        ([3, 4], 8, False, True),
        ([3, 3], 8, False, False),
        ([3, 3], 8, True, True),
        ([], 8, True, True),
    ],
)
def test_the_calls_that_a_plan_takes(
    rows: list[int], tokens: int, together: bool, fits: bool
) -> None:
    made = batch(rows, [])
    (call,) = calls(made, made.inputs, made.slots, CHUNK)
    assert isinstance(call, Call)
    assert call.fits(Plan(tokens=tokens, together=together, steps=[])) == fits
