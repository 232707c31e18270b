"""Memory of the GPU, and memory of the host that the GPU reads and writes by itself."""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any

import numpy as np
from cuda.bindings import driver as cu
from numpy.typing import NDArray

from mmfree_compiler.backends.cuda.run.device import Device, Resource
from mmfree_compiler.backends.cuda.run.driver import OUT_OF_MEMORY, call
from mmfree_compiler.backends.cuda.run.streams import Stream
from mmfree_compiler.errors import DeviceError, InputError

Array = NDArray[Any]


class DeviceMemory(Resource):
    """`nbytes` bytes on the GPU for `what`, uninitialized.

    `pointer` is their address there. Copies and clearing are work on a stream: they are called in
    `device.current()`, run in order with its kernels, and may still run after the call returned.
    Raises DeviceError when the GPU has too little free memory.
    """

    def __init__(self, device: Device, what: str, nbytes: int) -> None:
        self.nbytes = nbytes
        needs = {what: nbytes}
        check_free(device, needs)
        # Even so: free memory may be in pieces, or taken since it was checked.
        errors = {OUT_OF_MEMORY: lambda: _too_little(device, needs)}
        with device.current():
            pointer = call(cu.cuMemAlloc, max(nbytes, 1), errors=errors)
        super().__init__(device, f"GPU memory for {what}", cu.cuMemFree, pointer)

    @property
    def pointer(self) -> int:
        """The address on the GPU. Raises InputError when the memory was freed."""
        return int(self.handle)

    def upload(self, stream: Stream, array: Array, offset: int = 0) -> None:
        """Copy a contiguous array to `offset` bytes behind `pointer`; it may be read-only.

        A pinned array is not to be changed before the copy has run.
        """
        target = self._within(array, offset)
        call(cu.cuMemcpyHtoDAsync, target, array.ctypes.data, array.nbytes, stream.handle)

    def download(self, stream: Stream, array: Array, offset: int = 0) -> None:
        """Copy into a contiguous array, which has its values after `stream.synchronize()`."""
        source = self._within(array, offset)
        call(cu.cuMemcpyDtoHAsync, array.ctypes.data, source, array.nbytes, stream.handle)

    def copy(
        self, stream: Stream, offset: int, other: DeviceMemory, start: int, nbytes: int
    ) -> None:
        """Copy `nbytes` bytes of another memory, from `start` on, to the bytes from `offset` on."""
        target, source = self.pointer + offset, other.pointer + start
        call(cu.cuMemcpyDtoDAsync, target, source, nbytes, stream.handle)

    def clear(self, stream: Stream, offset: int, nbytes: int) -> None:
        """Set `nbytes` bytes, at least one, from `offset` on to 0."""
        call(cu.cuMemsetD8Async, self.pointer + offset, 0, nbytes, stream.handle)

    def _within(self, array: Array, offset: int) -> int:
        if not array.flags.c_contiguous or not 0 <= offset <= self.nbytes - array.nbytes:
            cause = f"does not fit into {self.nbytes:,} bytes, or is not contiguous"
            copied = f"an array of {array.nbytes:,} bytes at {offset:,} of the {self._what}"
            raise InputError(copied, cause, "Copy a contiguous array that fits")
        return self.pointer + offset


class BorrowedMemory(DeviceMemory):
    """`nbytes` bytes on the GPU at `pointer`, which somebody else allocated and frees."""

    def __init__(self, pointer: int, nbytes: int) -> None:
        self.nbytes = nbytes
        self._what, self._pointer = "memory of another library", pointer

    @property
    def pointer(self) -> int:
        return self._pointer

    def close(self) -> None:
        """Nothing is freed."""


class PinnedMemory(Resource):
    """`nbytes` bytes of the host, which copies read and write without an intermediate buffer.

    Raises DeviceError when the system does not provide them.
    """

    def __init__(self, device: Device, nbytes: int) -> None:
        self.nbytes = nbytes
        cause = f"cannot pin {_megabytes(nbytes)} of memory for {device}"
        error = DeviceError("this machine", cause, "End other programs on this machine")
        with device.current():
            errors = {OUT_OF_MEMORY: lambda: error}
            address = call(cu.cuMemHostAlloc, max(nbytes, 1), 0, errors=errors)
        super().__init__(device, "pinned memory", cu.cuMemFreeHost, address)

    @property
    def pointer(self) -> int:
        """The address, on the host and on the GPU. Raises InputError when it was freed."""
        return int(self.handle)

    @property
    def array(self) -> NDArray[np.uint8]:
        """The memory, (nbytes,) uint8. It is not freed while arrays of it are in use, but `close`
        does free it: they are not to be used after that. Raises InputError when it was freed.
        """
        buffer: Any = (ctypes.c_uint8 * self.nbytes).from_address(self.pointer)
        buffer.owner = self
        return np.frombuffer(buffer, np.uint8)


def allocate(device: Device, needs: Mapping[str, int]) -> dict[str, DeviceMemory]:
    """Memory for each of `needs`, such as {"weights": bytes, "scratch": bytes}: all or nothing.

    Raises DeviceError, with what each needs, when the GPU has too little free memory.
    """
    check_free(device, needs)
    with ExitStack() as undo:
        made = {}
        for what, nbytes in needs.items():
            made[what] = DeviceMemory(device, what, nbytes)
            undo.callback(made[what].close)
        undo.pop_all()
    return made


def check_free(device: Device, needs: Mapping[str, int]) -> None:
    """Raise DeviceError unless the GPU has as many free bytes as all of `needs` together."""
    if sum(needs.values()) > _free_and_total(device)[0]:
        raise _too_little(device, needs)


def _too_little(device: Device, needs: Mapping[str, int]) -> DeviceError:
    free, total = map(_megabytes, _free_and_total(device))
    parts = ", ".join(f"{_megabytes(nbytes)} for {what}" for what, nbytes in needs.items())
    cause = f"has too little free memory: {free} of {total}, but the model needs {parts}"
    return DeviceError(str(device), cause, "End other programs that use it, or run fewer sequences")


def _free_and_total(device: Device) -> tuple[int, int]:
    with device.current():
        free, total = call(cu.cuMemGetInfo)
    return free, total


def _megabytes(count: int) -> str:
    return f"{count / 1e6:,.1f} MB"
