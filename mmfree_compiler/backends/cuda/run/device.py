"""The GPUs of this machine, and opening one."""

from __future__ import annotations

import itertools
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Self

from cuda.bindings import driver as cu

from mmfree_compiler.backends.cuda.run.driver import NO_DEVICE, call, failure, release
from mmfree_compiler.backends.cuda.run.executor import Limits
from mmfree_compiler.errors import DeviceError, InputError, TargetError
from mmfree_compiler.wording import counted

OLDEST_DRIVER = (12, 0)  # the first with everything that is called here
_NAME_BYTES = 256
_ATTRIBUTE = cu.CUdevice_attribute
_MAJOR = _ATTRIBUTE.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR
_MINOR = _ATTRIBUTE.CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MINOR
_LIMITS = (
    _ATTRIBUTE.CU_DEVICE_ATTRIBUTE_MEMORY_CLOCK_RATE,
    _ATTRIBUTE.CU_DEVICE_ATTRIBUTE_GLOBAL_MEMORY_BUS_WIDTH,
    _ATTRIBUTE.CU_DEVICE_ATTRIBUTE_L2_CACHE_SIZE,
)


@dataclass(frozen=True)
class DeviceInfo:
    """A GPU: `memory` in bytes, `driver` the newest version of CUDA that its driver supports."""

    index: int
    name: str
    capability: tuple[int, int]
    memory: int
    driver: tuple[int, int]


def devices() -> list[DeviceInfo]:
    """The GPUs that this process may use.

    Raises NoGpuError when there is none, TargetError when the driver is too old or fails.
    """
    call(cu.cuInit, 0)
    number = call(cu.cuDriverGetVersion)
    driver = (number // 1000, number % 1000 // 10)
    if driver < OLDEST_DRIVER:
        cause = "is too old: it supports CUDA {}.{}, not {}.{}".format(*driver, *OLDEST_DRIVER)
        raise TargetError("the NVIDIA driver", cause, "Install a newer NVIDIA driver")
    count = call(cu.cuDeviceGetCount)
    if not count:
        raise failure(NO_DEVICE, cu.cuDeviceGetCount.__name__)
    return [_info(index, driver) for index in range(count)]


def _info(index: int, driver: tuple[int, int]) -> DeviceInfo:
    device = call(cu.cuDeviceGet, index)
    name = call(cu.cuDeviceGetName, _NAME_BYTES, device).split(b"\0")[0].decode()
    major, minor = (call(cu.cuDeviceGetAttribute, number, device) for number in (_MAJOR, _MINOR))
    return DeviceInfo(index, name, (major, minor), call(cu.cuDeviceTotalMem, device), driver)


def open_device(index: int = 0) -> Device:
    """Open a GPU. Raises DeviceError when there is no such one, and as `devices` does."""
    found = devices()
    if not 0 <= index < len(found):
        cause, hint = f"does not exist: there is {counted(len(found), 'GPU')}", "The first is GPU 0"
        raise DeviceError(f"GPU {index}", cause, hint)
    return Device(found[index])


class Device:
    """An open GPU. Its context is the one that torch and others in this process use too.

    Closing it closes all `Resource`s made with it, the newest first.
    """

    def __init__(self, info: DeviceInfo) -> None:
        self.info = info
        handle = call(cu.cuDeviceGet, info.index)
        self._context = call(cu.cuDevicePrimaryCtxRetain, handle)
        self._numbers = itertools.count()
        self._open: dict[int, Callable[[], object]] = {}
        self._release = weakref.finalize(self, release, cu.cuDevicePrimaryCtxRelease, handle)

    @property
    def limits(self) -> Limits:
        """What bounds programs on it, by what its driver says. Raises TargetError."""
        handle = call(cu.cuDeviceGet, self.info.index)
        clock, width, cache = (call(cu.cuDeviceGetAttribute, x, handle) for x in _LIMITS)
        # In kHz and bits; it delivers twice in a cycle.
        return Limits(self.info.name, 2 * clock * 1e3 * width / 8 or None, cache)

    @contextmanager
    def current(self) -> Iterator[None]:
        """A block in which calls of this thread are about this GPU.

        Whatever makes or frees something does this by itself; what puts work on a stream is called
        in such a block. Raises InputError when the device is closed.
        """
        if not self._release.alive:
            raise InputError(str(self), "is closed", "Open it again")
        call(cu.cuCtxPushCurrent, self._context)
        try:
            yield
        finally:
            release(cu.cuCtxPopCurrent)

    def track(
        self, resource: object, function: Callable[..., Any], handle: object
    ) -> weakref.finalize[..., object]:
        """Have `function(handle)` called once: by the result, by `close`, or without `resource`."""
        number = next(self._numbers)
        free = weakref.finalize(resource, self._free, number, function, handle)
        self._open[number] = free
        return free

    def _free(self, number: int, function: Callable[..., Any], handle: object) -> None:
        del self._open[number]
        release(cu.cuCtxPushCurrent, self._context)
        try:
            release(function, handle)
        finally:
            release(cu.cuCtxPopCurrent)

    def close(self) -> None:
        """Free everything. Does nothing when called again."""
        for free in reversed(list(self._open.values())):
            free()
        self._release()

    def __enter__(self) -> Device:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __str__(self) -> str:
        return f"GPU {self.info.index} ({self.info.name})"


class Resource:
    """Something of a device that is freed once: by `close`, with the device, or when unused.

    `what` names it in errors; `free` is the driver's function that frees `handle`.
    """

    def __init__(self, device: Device, what: str, free: Callable[..., Any], handle: Any) -> None:
        self.device = device
        self._what, self._handle = what, handle
        self._free = device.track(self, free, handle)

    @property
    def handle(self) -> Any:
        """What the driver knows it by. Raises InputError when it is closed."""
        self.check_open()
        return self._handle

    def check_open(self) -> None:
        """Raise InputError when it is closed."""
        if not self._free.alive:
            raise InputError(self._what, "is closed", "Open it again")

    def close(self) -> None:
        """Free it. Does nothing when called again."""
        self._free()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
