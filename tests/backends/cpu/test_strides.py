"""Where rows and states lie in memory."""

from __future__ import annotations

import pytest

from mmfree_compiler.artifact import StateEntry
from mmfree_compiler.backends.cpu.strides import row_stride, state_places, state_width
from mmfree_compiler.program import StateSlot, Value, ValueType


@pytest.mark.parametrize(
    ("dtype", "width", "stride"),
    [
        ("float32", 1, 16),
        ("float32", 16, 16),
        ("float32", 17, 32),
        ("int8", 1, 64),
        ("int8", 45, 64),  # 19 zeros follow at least
        ("int8", 46, 128),
        ("int64", 1, 1),
    ],
)
def test_rows_are_padded(dtype: ValueType, width: int, stride: int) -> None:
    assert row_stride(Value("x", width, dtype)) == stride


@pytest.mark.parametrize(
    ("shape", "row", "stride"), [((10,), 16, 16), ((4, 10), 16, 64), ((16,), 16, 16)]
)
def test_state_rows_are_padded(shape: tuple[int, ...], row: int, stride: int) -> None:
    (place,) = state_places([StateSlot("s", shape, count=3)]).values()
    assert (place.row, place.stride, place.end) == (row, stride, 3 * stride)


def test_states_follow_each_other() -> None:
    slots = (StateSlot("b", (10,), 3), StateSlot("a", (4, 10)), StateSlot("c", (16,)))
    places = state_places(slots)
    assert [(name, place.offset) for name, place in places.items()] == [
        ("b", 0),
        ("a", 48),
        ("c", 112),
    ]
    assert state_width(slots) == 128
    # A manifest says the same.
    entries = [StateEntry(name=s.name, shape=s.shape, count=s.count) for s in slots]
    assert state_places(entries) == places
    assert state_width([]) == 0
