"""The memory layout of rows and states, which kernels and their launcher share."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from mmfree_compiler.backends.interface import Slot
from mmfree_compiler.program import Value, ValueType

VECTOR = 16  # rows of floats are padded to whole vectors of this many elements
LINE = 64  # bytes of a cache line; rows of codes are padded to whole lines
# At least this many zeros follow every row of codes: the last block of columns of a weight layout
# may reach past the row (layouts.py: a block has at most 20 columns).
CODES_SLACK = 19

# dtype -> the least padding of a row, and the multiple to round its length up to, in elements
_ROWS: dict[ValueType, tuple[int, int]] = {
    "float32": (0, VECTOR),
    "int8": (CODES_SLACK, LINE),
    "int64": (0, 1),
}


def round_up(n: int, multiple: int) -> int:
    """The smallest multiple of `multiple` that is at least n."""
    return -(-n // multiple) * multiple


def float_stride(width: int) -> int:
    """Floats from one row of `width` to the next."""
    return round_up(width, VECTOR)


def row_stride(value: Value) -> int:
    """Elements from one token's row of a value to the next."""
    slack, multiple = _ROWS[value.dtype]
    return round_up(value.width + slack, multiple)


@dataclass(frozen=True)
class StatePlace:
    """The place of a scan's state in a sequence's row of floats.

    It has `count` parts of `stride` floats, starting at `offset`. Each part has `shape`, with its
    last dimension padded to `row` floats.
    """

    offset: int
    row: int
    shape: tuple[int, ...]
    count: int

    @property
    def stride(self) -> int:
        return math.prod(self.shape[:-1]) * self.row

    @property
    def end(self) -> int:
        return self.offset + self.stride * self.count


def state_places(slots: Iterable[Slot]) -> dict[str, StatePlace]:
    """The place of each state by name: one after the other, in order."""
    places: dict[str, StatePlace] = {}
    offset = 0
    for slot in slots:
        row = float_stride(slot.shape[-1])
        places[slot.name] = place = StatePlace(offset, row, slot.shape, slot.count)
        offset = place.end
    return places


def state_width(slots: Iterable[Slot]) -> int:
    """Floats of state per sequence."""
    return max((place.end for place in state_places(slots).values()), default=0)
