"""weights.bin: constants one after another, each at a 64-byte boundary."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mmfree_compiler.artifact.entries import STORAGE, TensorEntry
from mmfree_compiler.program import DENSE, Constant

Array = NDArray[np.generic]
Bytes = NDArray[np.uint8]
Copy = Callable[[Bytes, Bytes], None]  # (from, to)

ALIGNMENT = 64  # bytes: a cache line, and the widest vector of the CPU kernels


def aligned_empty(shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """An uninitialized C-contiguous array of `shape` whose data start at a 64-byte boundary.

    Kernels assume that alignment without a check; NumPy's own allocations promise 16 bytes.
    """
    sizes = (shape,) if isinstance(shape, int) else shape
    nbytes = math.prod(sizes) * np.dtype(dtype).itemsize
    raw = np.empty(nbytes + ALIGNMENT, np.uint8)
    start = -raw.ctypes.data % ALIGNMENT
    return raw[start : start + nbytes].view(dtype).reshape(sizes)


def pack_constants(constants: Iterable[Constant]) -> tuple[Bytes, dict[str, TensorEntry]]:
    """weights.bin (1-D uint8, aligned) of `constants`, and its tensor table.

    The parts of a constant follow each other without gaps, so that a loop indexes them.
    """
    constants = tuple(constants)
    table, size = _lay_out(constants)
    weights = aligned_empty(size, np.uint8)
    weights[:] = 0  # the gaps between constants
    for constant in constants:
        position = table[constant.name].offset
        for part in constant.parts:
            data = np.ascontiguousarray(part).reshape(-1).view(np.uint8)
            weights[position : position + data.size] = data
            position += data.size
    return weights, table


def _lay_out(constants: Iterable[Constant]) -> tuple[dict[str, TensorEntry], int]:
    """The place of each constant in weights.bin, and the size of weights.bin in bytes."""
    table: dict[str, TensorEntry] = {}
    end = 0
    for constant in constants:
        entry = TensorEntry(
            dtype=constant.dtype,
            shape=constant.shape,
            role=constant.role,
            layout=constant.layout.name,
            offset=end,
            nbytes=sum(part.nbytes for part in constant.parts),
            count=len(constant.parts),
        )
        table[constant.name] = entry
        end += math.ceil(entry.nbytes / ALIGNMENT) * ALIGNMENT
    return table, end


def read_tensor(weights: Bytes, entry: TensorEntry) -> Array:
    """The view of `entry` in weights.bin: (count, *shape) when dense, else (count, bytes) uint8."""
    data = weights[entry.offset : entry.offset + entry.nbytes]
    if entry.layout != DENSE.name:
        return data.reshape(entry.count, -1)
    return data.view(STORAGE[entry.dtype]).reshape(entry.count, *entry.shape)


@dataclass(frozen=True)
class Table:
    """A constant of role "table", whose rows are copied by token id.

    `parts` is a view of weights.bin, (count, rows, bytes per row) uint8.
    """

    parts: Bytes = field(repr=False)
    copy: Copy

    @property
    def row_shape(self) -> tuple[int, int]:
        """Shape of the data of one id: (count, bytes per row)."""
        count, _, width = self.parts.shape
        return count, width

    def read(self, ids: Array, out: Bytes) -> Bytes:
        """Copy the rows of `ids`, integers (M,), to the start of `out` (M or more, *row_shape).

        Returns that part of `out`. Raises ArtifactError when the artifact's file cannot be read.
        """
        for token, row in enumerate(ids.tolist()):
            for part, rows in enumerate(self.parts):
                self.copy(rows[row], out[token, part])
        return out[: len(ids)]
