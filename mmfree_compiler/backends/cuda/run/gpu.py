"""A GPU as the launcher uses it: one stream, the kernels of a build, memory."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.backends.cuda.facts import Kernel
from mmfree_compiler.backends.cuda.run import kernels, memory
from mmfree_compiler.backends.cuda.run.device import Device
from mmfree_compiler.backends.cuda.run.executor import Executor, Limits, Memory, Pointer
from mmfree_compiler.backends.cuda.run.graphs import Graph
from mmfree_compiler.backends.cuda.run.streams import BorrowedStream, Event, Stream

WARP = 32  # threads
# DLPack's number of CUDA's memory, and of its streams: one that needs no order, the default one.
DLPACK_CUDA = 2
UNORDERED, DEFAULT = -1, 1


@dataclass(frozen=True, eq=False)
class GpuMemory:
    """See executor.Memory."""

    memory: memory.DeviceMemory
    stream: Stream

    @property
    def nbytes(self) -> int:
        return self.memory.nbytes

    def upload(self, array: NDArray[Any], offset: int = 0) -> None:
        self.memory.upload(self.stream, array, offset)

    def download(self, array: NDArray[Any], offset: int = 0) -> None:
        self.memory.download(self.stream, array, offset)
        self.stream.synchronize()

    def copy(self, offset: int, other: Memory, start: int, nbytes: int) -> None:
        assert isinstance(other, GpuMemory)
        self.memory.copy(self.stream, offset, other.memory, start, nbytes)

    def clear(self, offset: int, nbytes: int) -> None:
        self.memory.clear(self.stream, offset, nbytes)

    def free(self) -> None:
        self.memory.close()


@dataclass(frozen=True, eq=False)
class GpuShared:
    """See executor.Shared."""

    memory: memory.PinnedMemory

    @property
    def array(self) -> NDArray[np.uint8]:
        return self.memory.array


@dataclass(frozen=True, eq=False)
class GpuMark:
    """See executor.Mark."""

    event: Event
    stream: Stream

    def set(self) -> None:
        self.event.record(self.stream)

    def wait(self) -> None:
        self.event.synchronize()


class Gpu:
    """See executor.Executor."""

    def __init__(self, device: Device) -> None:
        self._device, self._stream, self._end = device, Stream(device), Event(device)
        self.device = DLPACK_CUDA, device.info.index
        self.stream = int(self._stream.handle)
        self._kernels: dict[str, tuple[kernels.Kernel, Kernel]] = {}
        self._apart = False  # whether each launch waits for the end of the one in front of it

    def current(self) -> AbstractContextManager[None]:
        return self._device.current()

    def allocate(self, **needed: int) -> list[Memory]:
        found = memory.allocate(self._device, needed)
        return [GpuMemory(x, self._stream) for x in found.values()]

    def borrowed(self, pointer: int, nbytes: int) -> GpuMemory:
        return GpuMemory(memory.BorrowedMemory(pointer, nbytes), self._stream)

    def let_wait(self, stream: int | None) -> None:
        if stream != UNORDERED:
            self._end.record(self._stream)
            self._end.delay(DEFAULT if stream is None else stream)

    def share(self, nbytes: int) -> GpuShared:
        return GpuShared(memory.PinnedMemory(self._device, nbytes))

    def mark(self) -> GpuMark:
        return GpuMark(Event(self._device), self._stream)

    def load(self, code: NDArray[Any], places: Mapping[str, Kernel]) -> None:
        for name, place in places.items():
            cubin = code[place.offset : place.offset + place.size].tobytes()
            module = kernels.Module(self._device, cubin)
            kernel = kernels.Kernel(module, place.symbol, place.parameters)
            self._kernels[name] = kernel, place

    def launch(self, name: str, grid: tuple[int, int], arguments: Sequence[Pointer]) -> None:
        kernel, place = self._kernels[name]
        addresses = [_address(pointer) for pointer in arguments]
        threads, dependent = WARP * place.warps, place.dependent and not self._apart
        kernel.launch((*grid, 1), threads, place.shared, addresses, self._stream, dependent)

    def on(self, stream: int) -> Gpu:
        other = copy.copy(self)
        other._stream = BorrowedStream(stream)
        return other

    def finish(self) -> None:
        self._stream.synchronize()

    def recorded(self, launches: Callable[[], None]) -> Callable[[], None]:
        graph = Graph(self._stream, launches)
        return lambda: graph.replay(self._stream)

    def timed(self, pieces: Sequence[Callable[[Executor], None]]) -> Callable[[], list[float]]:
        marks = [Event(self._device) for _ in range(len(pieces) + 1)]
        apart = copy.copy(self)
        apart._apart = True

        def record() -> None:
            marks[0].record_in_graph(self._stream)
            for piece, mark in zip(pieces, marks[1:], strict=True):
                piece(apart)
                mark.record_in_graph(self._stream)

        replay = self.recorded(record)

        def run() -> list[float]:
            replay()
            self.finish()
            return [end.seconds_since(begin) for begin, end in pairwise(marks)]

        return run

    def seconds(self, work: Callable[[], None]) -> float:
        begin, end = Event(self._device), Event(self._device)
        begin.record(self._stream)
        work()
        end.record(self._stream)
        end.synchronize()
        return end.seconds_since(begin)

    @property
    def limits(self) -> Limits:
        return self._device.limits

    def close(self) -> None:
        self._device.close()


def _address(pointer: Pointer) -> int:
    assert isinstance(pointer.memory, GpuMemory | GpuShared)
    return pointer.memory.memory.pointer + pointer.offset
