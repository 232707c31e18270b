"""States as NumPy arrays, for state files and simple launchers."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.backends.interface import Indices, Slot, States

Arrays = dict[str, NDArray[np.float32]]


@dataclass(frozen=True, eq=False)
class NumpyStates:
    """`arrays` has (sequences, count, *shape) float32 of each state by name.

    `sequences` is their number, as there may be no arrays at all.
    """

    arrays: Arrays = field(repr=False)
    sequences: int

    @classmethod
    def zero(cls, slots: Iterable[Slot], count: int) -> NumpyStates:
        """The states of `count` sequences that have seen no tokens."""
        arrays = {s.name: np.zeros((count, s.count, *s.shape), np.float32) for s in slots}
        return cls(arrays, count)

    def __len__(self) -> int:
        return self.sequences

    def take(self, rows: Indices) -> NumpyStates:
        arrays = {name: array[rows].copy() for name, array in self.arrays.items()}
        return NumpyStates(arrays, len(np.arange(self.sequences)[rows]))

    def put(self, rows: Indices, other: States) -> None:
        for name, array in other.export().items():
            self.arrays[name][rows] = array

    def export(self) -> Arrays:
        return {name: array.copy() for name, array in self.arrays.items()}
