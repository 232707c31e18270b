"""The states of sequences in a device's memory, as the kernels read them."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import prod

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.artifact import StateEntry
from mmfree_compiler.backends.cuda.run.executor import Executor, Memory
from mmfree_compiler.backends.cuda.strides import state_offsets, state_stride
from mmfree_compiler.backends.interface import Indices, States

Floats = NDArray[np.float32]
Rows = NDArray[np.int32]

FIRST_ROWS = 8  # of an arena; it grows to twice as many when all are taken


class StateArena:
    """One memory for the states of all sequences: `memory` has a row for each (strides.py).

    It has one place, so that recorded launches find it; when it grows, it moves, and `moves` counts
    that.
    """

    def __init__(self, executor: Executor, slots: Sequence[StateEntry]) -> None:
        self.executor, self.slots = executor, tuple(slots)
        self.offsets, self.width = state_offsets(slots)
        self.moves, self._lock = 0, threading.RLock()
        self._count, self.memory = FIRST_ROWS, self._allocate(FIRST_ROWS)
        self._free = deque(range(FIRST_ROWS))

    @property
    def row_bytes(self) -> int:
        """Bytes from the state of a sequence to the next."""
        return 4 * self.width

    @contextmanager
    def using(self) -> Iterator[None]:
        """A block in which this thread alone uses the device and the arena's memory."""
        with self._lock, self.executor.current():
            yield

    def acquire(self, count: int) -> Rows:
        """The numbers of `count` rows that nobody uses."""
        with self.using():
            while len(self._free) < count:
                self._grow()
            return np.array([self._free.popleft() for _ in range(count)], np.int32)

    def release(self, rows: Rows) -> None:
        """Rows that nobody uses any more.

        It takes no lock: the garbage collector calls it, perhaps while this thread has the lock, or
        in a forked child where nobody will return it.
        """
        self._free.extend(rows.tolist())

    def _allocate(self, rows: int) -> Memory:
        (memory,) = self.executor.allocate(states=rows * self.row_bytes)
        return memory

    def _grow(self) -> None:
        old, count = self.memory, self._count
        self._count, self.memory = 2 * count, self._allocate(2 * count)
        self.memory.copy(0, old, 0, old.nbytes)
        # Steps of decoding may still run: they, and the copy behind them, need the old memory.
        copied = self.executor.mark()
        copied.set()
        copied.wait()
        old.free()
        self.moves += 1
        self._free += range(count, 2 * count)


@dataclass(eq=False)
class CudaStates:
    """The states in some rows of an arena."""

    arena: StateArena = field(repr=False)
    rows: Rows

    @classmethod
    def zero(cls, arena: StateArena, count: int) -> CudaStates:
        states = cls(arena, arena.acquire(count))
        with arena.using():
            for row in states.rows.tolist() if arena.row_bytes else ():
                arena.memory.clear(row * arena.row_bytes, arena.row_bytes)
        return states

    @classmethod
    def copied(cls, arena: StateArena, rows: Rows) -> CudaStates:
        """A copy of what is in some rows."""
        states = cls(arena, arena.acquire(len(rows)))
        states._copy(states.rows, rows)
        return states

    def __len__(self) -> int:
        return len(self.rows)

    def __del__(self) -> None:
        self.arena.release(self.rows)

    def take(self, rows: Indices) -> CudaStates:
        return CudaStates.copied(self.arena, self.rows[rows])

    def put(self, rows: Indices, other: States) -> None:
        if not isinstance(other, CudaStates) or other.arena is not self.arena:
            other = self._uploaded(other)
        self._copy(self.rows[rows], other.rows)

    def export(self) -> dict[str, Floats]:
        values = np.empty((len(self), self.arena.width), np.float32)
        with self.arena.using():
            for value, row in zip(values, self.rows.tolist(), strict=True):
                self.arena.memory.download(value, row * self.arena.row_bytes)
        return {slot.name: self._part(values, slot).copy() for slot in self.arena.slots}

    def _uploaded(self, other: States) -> CudaStates:
        values = np.zeros((len(other), self.arena.width), np.float32)
        arrays = other.export()
        for slot in self.arena.slots:
            self._part(values, slot)[:] = arrays[slot.name]
        states = CudaStates(self.arena, self.arena.acquire(len(other)))
        states._upload(values)
        return states

    def _upload(self, values: Floats) -> None:
        with self.arena.using():
            for value, row in zip(values, self.rows.tolist(), strict=True):
                self.arena.memory.upload(value, row * self.arena.row_bytes)

    def _copy(self, targets: Rows, sources: Rows) -> None:
        nbytes = self.arena.row_bytes
        with self.arena.using():
            memory = self.arena.memory
            for target, source in zip(targets.tolist(), sources.tolist(), strict=True):
                memory.copy(target * nbytes, memory, source * nbytes, nbytes)

    def _part(self, values: Floats, slot: StateEntry) -> Floats:
        """One state in rows (B, width): a view (B, count, *shape)."""
        offset, stride = self.arena.offsets[slot.name], state_stride(slot)
        padded = values[:, offset : offset + slot.count * stride]
        parts = padded.reshape(len(values), slot.count, stride)[..., : prod(slot.shape)]
        return parts.reshape(len(values), slot.count, *slot.shape)
