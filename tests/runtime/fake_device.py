"""A library with arrays on a device, and a launcher on that device. Both are in the host's memory.

Import it as `fake_device`: the module of the arrays is the library, as with torch and CuPy.
"""

from __future__ import annotations

import ctypes
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import numpy as np
from fake_launcher import FakeLauncher, lm_artifact, module_artifact
from numpy.typing import NDArray

from mmfree_compiler.backends.device_interface import DeviceRows
from mmfree_compiler.backends.interface import Array, Batch
from mmfree_compiler.runtime import Session
from mmfree_compiler.runtime.dlpack import tensor_of

DEVICE, STREAM, CURRENT = (2, 0), 42, 7  # the launcher's stream, and the library's current one
float32, int64 = np.float32, np.int64
log: list[str] = []  # what is ordered, and what runs


class DeviceArray:
    """NumPy cannot read it; `values` are what it holds."""

    def __init__(self, values: Any, index: int = 0) -> None:
        self.values, self.index = np.asarray(values), index

    dtype = property(lambda self: self.values.dtype)
    shape = property(lambda self: self.values.shape)

    @property
    def device(self) -> AbstractContextManager[None]:
        return nullcontext()

    def reshape(self, shape: tuple[int, ...]) -> DeviceArray:
        return DeviceArray(self.values.reshape(shape))

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("it is on the device")

    def __dlpack_device__(self) -> tuple[int, int]:
        return DEVICE[0], self.index

    def __dlpack__(self, *, stream: int | None = None) -> Any:
        log.append(f"array to stream {stream}")
        return _moved(self.values.__dlpack__(), DEVICE)


def ravel(x: DeviceArray) -> DeviceArray:
    return DeviceArray(x.values.ravel())


def asarray(x: DeviceArray, dtype: Any) -> DeviceArray:
    return DeviceArray(np.asarray(x.values, dtype))


def zeros(shape: tuple[int, ...], dtype: Any) -> DeviceArray:
    return DeviceArray(np.zeros(shape, dtype))


def from_dlpack(x: Any) -> DeviceArray:
    assert x.__dlpack_device__() == DEVICE
    capsule = _moved(x.__dlpack__(stream=CURRENT), (1, 0))
    return DeviceArray(np.from_dlpack(_Capsule(capsule)))


def _moved(capsule: Any, device: tuple[int, int]) -> Any:
    """The capsule, which says from now on that its array is on `device`."""
    tensor_of(capsule).device[:] = device
    return capsule


class _Capsule:
    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __dlpack__(self, **_: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


class DeviceLauncher(FakeLauncher):
    """Its `run` never sees an array that has to pass through the host."""

    device, stream = DEVICE, STREAM

    def read(self, pointer: int, array: Array) -> None:
        log.append("read")
        ctypes.memmove(array.ctypes.data, pointer, array.nbytes)

    def run_there(
        self,
        batch: Batch,
        states: Any,
        inputs: tuple[DeviceRows, ...],
        outputs: tuple[DeviceRows, ...],
    ) -> None:
        log.append("run")
        ports = self.artifact.manifest.inputs
        read = [_memory(x, p.width, p.dtype) for x, p in zip(inputs, ports, strict=True)]
        rows = tuple(
            found[:, 0] if port.dtype == "int64" else found
            for found, port in zip(read, ports, strict=True)
        )
        made = self.run(Batch(rows, batch.slots, batch.positions, batch.wanted), states)
        for place, values in zip(outputs, made, strict=True):
            _all(place, values.shape[1], "float32")[place.rows] = values

    def let_wait(self, stream: int | None) -> None:
        log.append(f"stream {stream} waits")


def _memory(rows: DeviceRows, width: int, dtype: str) -> NDArray[Any]:
    """A copy of the rows."""
    return _all(rows, width, dtype)[rows.rows]


def _all(rows: DeviceRows, width: int, dtype: str) -> NDArray[Any]:
    """The array that `rows` are of, up to the last of them."""
    count = (int(rows.rows.max()) + 1) * width
    data: Any = (ctypes.c_uint8 * (count * np.dtype(dtype).itemsize)).from_address(rows.pointer)
    return np.frombuffer(data, dtype).reshape(-1, width)


def device_session(artifact: Any) -> Any:
    log.clear()
    return Session(artifact, launcher=cast(Any, DeviceLauncher(artifact)))


def device_lm() -> Any:
    return device_session(lm_artifact())


def device_module(**options: Any) -> Any:
    return device_session(module_artifact(**options))
