"""Where rows and states are in the memory of a device. NumPy's part and the kernels' agree here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import accumulate
from math import prod

from mmfree_compiler.backends.interface import Slot

ALIGNMENT = 16  # bytes: the widest load of a thread, and where every row begins
CHUNK = 2048  # the most tokens of a launch: longer inputs are cut
OUTPUTS = 256  # the most of them whose outputs are wanted: logits of more would take much memory


def round_up(size: int, multiple: int = ALIGNMENT) -> int:
    """The smallest multiple of `multiple` that is at least `size`."""
    return -(-size // multiple) * multiple


def power_of_two(size: int) -> int:
    """The smallest power of two that is at least `size`; 0 stays."""
    return 1 << (size - 1).bit_length() if size else 0


def float_stride(width: int) -> int:
    """float32 elements from a row of `width` of them to the next."""
    return round_up(4 * width) // 4


def codes_stride(width: int) -> int:
    """Bytes from a row of `width` activation codes to the next; what fills a row is zero."""
    return round_up(width)


def port_starts(row_bytes: Iterable[int], rows: int, first: int = 0) -> list[int]:
    """Where the rows of each port begin, which have no padding, and their end: bytes."""
    return [*accumulate((round_up(rows * size) for size in row_bytes), initial=first)]


def state_offsets(slots: Iterable[Slot]) -> tuple[Mapping[str, int], int]:
    """Where each state begins in the states of a sequence, and their size: float32 elements.

    The `count` arrays of a state follow each other, each at a multiple of ALIGNMENT.
    """
    offsets, end = {}, 0
    for slot in slots:
        offsets[slot.name] = end
        end += slot.count * state_stride(slot)
    return offsets, end


def state_stride(slot: Slot) -> int:
    """float32 elements from one of a state's arrays to the next."""
    return float_stride(prod(slot.shape))
