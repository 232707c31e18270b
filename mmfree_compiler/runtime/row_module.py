"""Calling a compiled module that is not a language model: tensors in, tensors out."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.artifact import Manifest, Port
from mmfree_compiler.backends.interface import Batch, Launcher
from mmfree_compiler.errors import InputError
from mmfree_compiler.runtime.arrays import Array, is_torch, like, to_numpy
from mmfree_compiler.runtime.device_array import DeviceArray
from mmfree_compiler.runtime.device_arrays import run_there, there

Leading = tuple[int, ...]


class RowModule:
    """Runs an artifact of kind "module" through its launcher."""

    usage = "Pass the inputs of the module alone, in its order and without names"

    def __init__(self, manifest: Manifest, launcher: Launcher) -> None:
        self._manifest, self.launcher = manifest, launcher

    def __call__(self, *tensors: Any) -> Any:
        """See Session.__call__."""
        ports = self._manifest.inputs
        if len(tensors) != len(ports):
            names = ", ".join(port.name for port in ports)
            raise InputError("inputs", f"{len(tensors)} given", f"The module takes {names}")
        pairs = zip(tensors, ports, strict=True)
        found = [there(x, port.name, self.launcher) for x, port in pairs]
        on_device = [array for array in found if array is not None]
        if on_device and len(on_device) < len(found):
            hint = "Pass all of them there, or all of them on the host"
            raise InputError("inputs", "are partly on the device of the model", hint)
        results = self._there(on_device) if on_device else self._here(tensors)
        return self._manifest.returned.build(results)

    def _here(self, tensors: tuple[Any, ...]) -> list[Any]:
        """The outputs of tensors on the host, in their framework."""
        ports = self._manifest.inputs
        arrays = [to_numpy(x, port.name) for x, port in zip(tensors, ports, strict=True)]
        leading = _leading(arrays, ports)
        rows = tuple(_rows(x, port) for x, port in zip(arrays, ports, strict=True))
        batch = Batch.whole(rows, leading)
        outputs = self.launcher.run(batch, self.launcher.states(_sequences(batch)))
        example = next((x for x in tensors if is_torch(x)), None)
        return [like(example, out.reshape(*leading, out.shape[1])) for out in outputs]

    def _there(self, arrays: list[DeviceArray]) -> list[Any]:
        """The outputs of arrays on the device, there and of their library."""
        manifest = self._manifest
        leading = _leading(arrays, manifest.inputs)
        index = np.arange(math.prod(leading))
        inputs = [x.cast(port.dtype) for x, port in zip(arrays, manifest.inputs, strict=True)]
        made = [inputs[0].zeros(*leading, port.width) for port in manifest.outputs]
        batch = Batch.whole((), leading)
        states = self.launcher.states(_sequences(batch))
        return run_there(batch, states, inputs, made, index)


def _sequences(batch: Batch) -> int:
    return int(batch.slots[-1]) + 1


def _leading(arrays: Sequence[Array | DeviceArray], ports: tuple[Port, ...]) -> Leading:
    """The leading dimensions that all inputs share. Raises InputError if one does not fit."""
    found = set()
    for array, port in zip(arrays, ports, strict=True):
        ids = port.dtype == "int64"
        if array.dtype.kind not in ("iu" if ids else "fiu"):
            raise InputError(port.name, f"has dtype {array.dtype}", f"Pass {port.dtype}")
        if not ids and array.shape[-1:] != (port.width,):
            raise InputError(port.name, f"has shape {array.shape}", f"Pass (..., {port.width})")
        if array.size == 0:
            raise InputError(
                port.name, f"is empty, of shape {array.shape}", "Pass at least one row"
            )
        if ids and not _in_range(array, port.limit or 0):
            raise InputError(port.name, "holds ids out of range", f"Ids are below {port.limit}")
        found.add(array.shape if ids else array.shape[:-1])
    if len(found) > 1:
        shapes = ", ".join(str(shape) for shape in sorted(found))
        raise InputError("inputs", f"have different leading dimensions {shapes}", "Make them equal")
    return found.pop()


def _in_range(array: Array | DeviceArray, limit: int) -> bool:
    ids: NDArray[Any] = array.numpy() if isinstance(array, DeviceArray) else array
    return bool(0 <= ids.min() <= ids.max() < limit)


def _rows(array: Array, port: Port) -> Array:
    """One row per token: `array` itself if it has the port's dtype.

    Numbers beyond float32 become infinite without a warning, as in torch.
    """
    if port.dtype == "int64":
        return np.ascontiguousarray(array.reshape(-1), np.int64)
    with np.errstate(all="ignore"):
        return np.asarray(array.reshape(-1, port.width), np.float32)
