"""The states of sequences in this process's memory, as the kernels read them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.artifact import StateEntry, aligned_empty
from mmfree_compiler.backends.cpu.strides import StatePlace, state_places, state_width
from mmfree_compiler.backends.interface import Indices, States
from mmfree_compiler.errors import InputError

Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class CpuStates:
    """`array` is (sequences, state_width) float32, one row per sequence (strides.py).

    Padding is zero, and stays zero.
    """

    array: Floats = field(repr=False)
    slots: tuple[StateEntry, ...]

    @classmethod
    def zero(cls, slots: Sequence[StateEntry], count: int) -> CpuStates:
        try:
            array = aligned_empty((count, state_width(slots)), np.float32)
        except (MemoryError, ValueError) as error:  # ValueError: beyond the address space
            cause, hint = f"need too much memory: {error}", "Run fewer sequences at once"
            raise InputError(f"the states of {count:,} sequences", cause, hint) from error
        array[:] = 0
        return cls(array, tuple(slots))

    def __len__(self) -> int:
        return len(self.array)

    def take(self, rows: Indices) -> CpuStates:
        chosen = self.array[rows]
        array = aligned_empty(chosen.shape, np.float32)
        array[:] = chosen
        return CpuStates(array, self.slots)

    def put(self, rows: Indices, other: States) -> None:
        if isinstance(other, CpuStates):
            self.array[rows] = other.array
            return
        places, changed = state_places(self.slots), self.array[rows]
        for name, values in other.export().items():
            _part(changed, places[name])[:] = values
        self.array[rows] = changed

    def export(self) -> dict[str, Floats]:
        places = state_places(self.slots)
        return {name: _part(self.array, place).copy() for name, place in places.items()}


def _part(array: Floats, place: StatePlace) -> Floats:
    """One state in rows (B, state_width): a view (B, count, *shape)."""
    rows = array[:, place.offset : place.end]
    padded = rows.reshape(len(array), place.count, *place.shape[:-1], place.row)
    return padded[..., : place.shape[-1]]
