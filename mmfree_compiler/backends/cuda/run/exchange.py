"""Copies between the rows of a launcher's ports and arrays of other libraries on the same GPU."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from mmfree_compiler.artifact import Port
from mmfree_compiler.backends.cuda.run.executor import Executor, Memory
from mmfree_compiler.backends.device_interface import DeviceRows
from mmfree_compiler.backends.interface import Array


def row_bytes(port: Port) -> int:
    """Bytes from a row of a port to the next: there is no padding."""
    return (8 if port.dtype == "int64" else 4) * port.width


@dataclass(frozen=True)
class PortRows:
    """The rows of a port: `row_bytes` each, from the byte `start` of `memory` on."""

    executor: Executor
    memory: Memory
    start: int
    row_bytes: int

    def fill(self, rows: Array | DeviceRows) -> None:
        """Copy rows to the port's first ones, from the host or from the device."""
        if not isinstance(rows, DeviceRows):
            self.memory.upload(np.ascontiguousarray(rows), self.start)
            return
        for ours, theirs, nbytes in self._runs(rows):
            other = self.executor.borrowed(rows.pointer + theirs, nbytes)
            self.memory.copy(self.start + ours, other, 0, nbytes)

    def give(self, rows: DeviceRows) -> None:
        """Copy the port's first rows to where `rows` are."""
        for ours, theirs, nbytes in self._runs(rows):
            other = self.executor.borrowed(rows.pointer + theirs, nbytes)
            other.copy(0, self.memory, self.start + ours, nbytes)

    def _runs(self, rows: DeviceRows) -> Iterator[tuple[int, int, int]]:
        """Rows that follow each other: where they begin here and there, and their size; bytes."""
        size, first = self.row_bytes, 0
        for run in np.split(rows.rows, np.flatnonzero(np.diff(rows.rows) != 1) + 1):
            if len(run):
                yield first * size, int(run[0]) * size, len(run) * size
            first += len(run)
