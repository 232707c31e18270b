"""Arrays of torch and CuPy in the memory of a launcher's device, read and made where they lie.

What both libraries have is used: `_USED`, and devices that are context managers. Neither is
imported: an array's own library is in sys.modules.
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
from mmfree_compiler.backends.interface import Batch, Launcher
from mmfree_compiler.errors import InputError
from mmfree_compiler.runtime.arrays import Array, is_torch, plain, reading, to_numpy
from mmfree_compiler.runtime.dlpack import HOST, NO_ORDER, address, place

_USED = ("asarray", "ravel", "zeros", "from_dlpack", "float32", "int64")  # of a library


@dataclass(frozen=True)
class DeviceArray:
    """An array of `library` on the device of `launcher`: `flat` has its elements in C order.

    The launcher's stream waits for what `flat` was made by; see `finished` for the way back.
    """

    flat: Any = field(repr=False)
    shape: tuple[int, ...]
    library: ModuleType
    launcher: DeviceLauncher = field(repr=False)

    @property
    def dtype(self) -> np.dtype[Any]:
        return np.dtype(str(self.flat.dtype).rpartition(".")[2])

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    def numpy(self) -> Array:
        """Its values on the host, after waiting for them."""
        array = np.empty(self.shape, self.dtype)
        self.launcher.read(self._address(), array)
        return array

    def cast(self, dtype: str) -> DeviceArray:
        """With the values as "float32" or "int64"; this array itself if they are that."""
        with _current(self.flat):
            kind = getattr(self.library, dtype)
            return replace(self, flat=self.library.asarray(self.flat, dtype=kind))

    def zeros(self, *shape: int) -> DeviceArray:
        """A new array of the library on the device, float32."""
        with _current(self.flat):
            flat = self.library.zeros((math.prod(shape),), dtype=self.library.float32)
        return replace(self, flat=flat, shape=shape)

    def rows(self, index: NDArray[np.intp]) -> DeviceRows:
        """The rows of these numbers, for the launcher."""
        return DeviceRows(self._address(), index)

    def finished(self) -> Any:
        """The array for the library's user, whose stream waits for the launcher's work so far."""
        with _current(self.flat):
            return self.library.from_dlpack(_Ordered(self.flat, self.launcher)).reshape(self.shape)

    def _address(self) -> int:
        with _current(self.flat):
            return address(self.flat.__dlpack__(stream=self.launcher.stream))


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


def there(value: Any, thing: str, launcher: Launcher) -> DeviceArray | None:
    """`value` as an array on the device of `launcher`; None if it is on the host.

    Raises InputError, which names `thing`, on arrays of other devices and on those that are not
    dense.
    """
    with reading(thing):
        if isinstance(value, DeviceArray):
            return value
        device = _device(value)
    if device is None or not isinstance(launcher, DeviceLauncher):
        return None
    if device != launcher.device:
        cause = f"is on {place(device)}, the model on {place(launcher.device)}"
        hint = ", or load the model on its device" if device[0] == launcher.device[0] else ""
        raise InputError(thing, cause, f"Copy it there{hint}")
    with reading(thing, "Pass a dense array of torch or CuPy, int64 or float32"):
        return _found(value, launcher)


def run_there(
    batch: Batch,
    states: Any,
    inputs: list[DeviceArray],
    made: list[DeviceArray],
    index: NDArray[np.intp],
) -> list[Any]:
    """Run a batch whose token k has row `index[k]` of each of `inputs` and of `made`.

    All tokens are wanted. Returns `made` as arrays of their library.
    """
    launcher = made[0].launcher
    given, outputs = (tuple(x.rows(index) for x in arrays) for arrays in (inputs, made))
    try:
        launcher.run_there(batch, states, given, outputs)
    finally:
        # However it ends: before the library uses the memory again, the launcher's work is over.
        found = [array.finished() for array in made]
    return found


def to_host(value: Any, thing: str, launcher: Launcher) -> Array:
    """`value` as a NumPy array, wherever it is. Raises InputError as `there` and `to_numpy`."""
    array = there(value, thing, launcher)
    return to_numpy(value, thing) if array is None else array.numpy()


def _device(value: Any) -> tuple[int, int] | None:
    """DLPack's type and number of the device that an array is on; None for the host's memory."""
    if not hasattr(value, "__dlpack_device__"):
        return None
    kind, index = map(int, value.__dlpack_device__())
    return None if kind in HOST else (kind, index)


def _found(value: Any, launcher: DeviceLauncher) -> DeviceArray:
    library = _library(value)
    array = plain(value) if is_torch(value) else value
    with _current(array):
        made = DeviceArray(library.ravel(array), tuple(array.shape), library, launcher)
    if made.dtype.kind not in "biufc":
        raise TypeError(f"its dtype is {array.dtype}")
    return made


def _library(value: Any) -> ModuleType:
    """The module of an array's class or of one that it is derived from. Raises TypeError."""
    if is_torch(value):
        return sys.modules["torch"]
    for kind in type(value).__mro__:
        library = sys.modules.get(str(kind.__module__).partition(".")[0])
        if library is not None and all(hasattr(library, name) for name in _USED):
            return library
    raise TypeError(f"a {type(value).__name__} is of no library with {', '.join(_USED)}")


@contextmanager
def _current(array: Any) -> Iterator[None]:
    """A block in which new arrays are on the device of `array`, and its stream there is current."""
    block = sys.modules["torch"].cuda.device_of(array) if is_torch(array) else nullcontext()
    with block, array.device:
        yield
