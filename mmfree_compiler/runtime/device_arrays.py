"""Arrays of torch and CuPy in the memory of a launcher's device, read and made where they lie.

Neither library is imported: an array's own is in sys.modules.
"""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.backends.device_interface import DeviceLauncher
from mmfree_compiler.backends.interface import Batch, Launcher
from mmfree_compiler.errors import InputError
from mmfree_compiler.runtime.arrays import Array, is_torch, plain, reading, to_numpy
from mmfree_compiler.runtime.device_array import HINT, USED, DeviceArray, current
from mmfree_compiler.runtime.dlpack import HOST, place


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
    return _found(value, thing, launcher)


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


def _found(value: Any, thing: str, launcher: DeviceLauncher) -> DeviceArray:
    with reading(thing, HINT):
        library = _library(value)
        array = plain(value) if is_torch(value) else value
        shape = _shape(array)
        with current(array):
            flat = library.ravel(array)
    return DeviceArray(thing, flat, shape, library, launcher)


def _library(value: Any) -> ModuleType:
    """The module of an array's class or of one that it is derived from. Raises TypeError."""
    if is_torch(value):
        return sys.modules["torch"]
    for kind in type(value).__mro__:
        library = sys.modules.get(str(kind.__module__).partition(".")[0])
        if library is not None and all(hasattr(library, name) for name in USED):
            return library
    raise TypeError(f"a {type(value).__name__} is of no library with {', '.join(USED)}")


def _shape(array: Any) -> tuple[int, ...]:
    """Its shape, if NumPy has arrays of it. Raises TypeError, ValueError."""
    shape = array.shape
    if not isinstance(shape, tuple):
        raise TypeError(f"its shape is of type {type(shape).__name__}")
    return np.broadcast_to(0, shape).shape
