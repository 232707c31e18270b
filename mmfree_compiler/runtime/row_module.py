"""Calling a compiled module that is not a language model: tensors in, tensors out."""

from __future__ import annotations

from typing import Any

import numpy as np

from mmfree_compiler.artifact import Manifest, Port
from mmfree_compiler.backends.interface import Batch, Launcher
from mmfree_compiler.errors import InputError
from mmfree_compiler.runtime.arrays import Array, is_torch, like, to_numpy


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
        arrays = [to_numpy(x, port.name) for x, port in zip(tensors, ports, strict=True)]
        leading = _leading(arrays, ports)
        rows = tuple(_rows(x, port) for x, port in zip(arrays, ports, strict=True))
        batch = Batch.whole(rows, leading)
        outputs = self.launcher.run(batch, self.launcher.states(int(batch.slots[-1]) + 1))
        example = next((x for x in tensors if is_torch(x)), None)
        results = [like(example, out.reshape(*leading, out.shape[1])) for out in outputs]
        return self._manifest.returned.build(results)


def _leading(arrays: list[Array], ports: tuple[Port, ...]) -> tuple[int, ...]:
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
        if ids and not 0 <= array.min() <= array.max() < (port.limit or 0):
            raise InputError(port.name, "holds ids out of range", f"Ids are below {port.limit}")
        found.add(array.shape if ids else array.shape[:-1])
    if len(found) > 1:
        shapes = ", ".join(str(shape) for shape in sorted(found))
        raise InputError("inputs", f"have different leading dimensions {shapes}", "Make them equal")
    return found.pop()


def _rows(array: Array, port: Port) -> Array:
    """One row per token: `array` itself if it has the port's dtype.

    Numbers beyond float32 become infinite without a warning, as in torch.
    """
    if port.dtype == "int64":
        return np.ascontiguousarray(array.reshape(-1), np.int64)
    with np.errstate(all="ignore"):
        return np.asarray(array.reshape(-1, port.width), np.float32)
