"""An array of torch or CuPy in the memory of a launcher's device.

What both libraries have is used: `USED`, and devices that are context managers. What an array says
of itself is believed only where its capsule, from which the launcher takes the address, says the
same.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.backends.device_interface import DeviceLauncher, DeviceRows
from mmfree_compiler.errors import InputError
from mmfree_compiler.runtime.arrays import Array, is_torch, reading
from mmfree_compiler.runtime.dlpack import NO_ORDER, Memory, memory_of, place
from mmfree_compiler.wording import counted

HINT = "Pass a dense array of torch or CuPy, int64 or float32"
USED = ("asarray", "ravel", "zeros", "from_dlpack", "float32", "int64")  # of a library


@dataclass(frozen=True)
class DeviceArray:
    """The argument `thing`, an array of `library` on the device of `launcher`.

    `flat` has its elements in C order. Its capsule says where: `memory`, which is on the device and
    as large as `shape` says. The launcher's stream waits for what `flat` was made by; see
    `finished` for the way back. Raises InputError if anything does not agree.
    """

    thing: str
    flat: Any = field(repr=False)
    shape: tuple[int, ...]
    library: ModuleType
    launcher: DeviceLauncher = field(repr=False)
    memory: Memory = field(init=False)

    def __post_init__(self) -> None:
        with reading(self.thing, HINT), current(self.flat):
            memory = memory_of(self.flat.__dlpack__(stream=self.launcher.stream))
            told = str(self.flat.dtype).rpartition(".")[2]
        expected = (self.launcher.device, told, self.size)
        found = (memory.device, memory.dtype.name, memory.size)
        if found != expected:
            cause = f"is {_described(*expected)}, its capsule {_described(*found)}"
            raise InputError(self.thing, cause, HINT)
        object.__setattr__(self, "memory", memory)

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.memory.dtype

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def numpy(self) -> Array:
        """Its values on the host, after waiting for them."""
        with reading(self.thing, HINT):
            array = np.empty(self.shape, self.dtype)
        self.launcher.read(self.memory.pointer, array)
        return array

    def cast(self, dtype: str) -> DeviceArray:
        """With the values as "float32" or "int64"; this array itself if they are that."""
        if self.dtype == dtype:
            return self
        with reading(self.thing, HINT), current(self.flat):
            flat = self.library.asarray(self.flat, dtype=getattr(self.library, dtype))
        return self._made(flat, self.shape, dtype)

    def zeros(self, *shape: int) -> DeviceArray:
        """A new array of the library on the device, float32."""
        with current(self.flat):
            flat = self.library.zeros((math.prod(shape),), dtype=self.library.float32)
        return self._made(flat, shape, "float32")

    def rows(self, index: NDArray[np.intp]) -> DeviceRows:
        """The rows of these numbers, for the launcher."""
        return DeviceRows(self.memory.pointer, index)

    def finished(self) -> Any:
        """The array for the library's user, whose stream waits for the launcher's work so far."""
        with current(self.flat):
            return self.library.from_dlpack(_Ordered(self.flat, self.launcher)).reshape(self.shape)

    def _made(self, flat: Any, shape: tuple[int, ...], dtype: str) -> DeviceArray:
        made = replace(self, flat=flat, shape=shape)
        if made.dtype != dtype:
            cause = f"is of {self.library.__name__}, which makes {made.dtype} instead of {dtype}"
            raise InputError(self.thing, cause, HINT)
        return made


@dataclass(frozen=True)
class _Ordered:
    """`array` as DLPack passes it on: the receiver's stream waits for the launcher."""

    array: Any
    launcher: DeviceLauncher

    def __dlpack_device__(self) -> tuple[int, int]:
        return self.launcher.device

    def __dlpack__(self, *, stream: int | None = None, **options: Any) -> Any:
        self.launcher.let_wait(stream)
        return self.array.__dlpack__(stream=NO_ORDER, **options)


def _described(device: tuple[int, int], dtype: str, size: int) -> str:
    return f"{counted(size, 'number')} of {dtype} on {place(device)}"


@contextmanager
def current(array: Any) -> Iterator[None]:
    """A block in which new arrays are on the device of `array`, and its stream there is current."""
    block = sys.modules["torch"].cuda.device_of(array) if is_torch(array) else nullcontext()
    with block, array.device:
        yield
