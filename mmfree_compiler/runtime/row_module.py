"""Calls of a compiled module that is no language model: tensors in, tensors out."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from mmfree_compiler.artifact import ALIGNMENT, Port, aligned_empty
from mmfree_compiler.errors import InputError
from mmfree_compiler.runtime.arrays import Array, is_torch, like, to_numpy
from mmfree_compiler.runtime.launcher import Runner


class RowModule:
    """An artifact of kind "module" behind its launcher."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._manifest = runner.manifest

    def __call__(self, *tensors: Any) -> Any:
        """See Session.__call__."""
        ports = self._manifest.inputs
        if len(tensors) != len(ports):
            names = ", ".join(port.name for port in ports)
            raise InputError("inputs", f"{len(tensors)} given", f"The module takes {names}")
        arrays = [to_numpy(x, port.name) for x, port in zip(tensors, ports, strict=True)]
        leading = _leading(arrays, ports)
        time = leading[-1] if leading else 1
        sequences = math.prod(leading) // time
        slots = np.repeat(np.arange(sequences, dtype=np.int32), time)
        state = aligned_empty((sequences, self._manifest.state_width), np.float32)
        state[:] = 0
        rows = tuple(_rows(x, port) for x, port in zip(arrays, ports, strict=True))
        outputs = self._runner.run(rows, slots, state)
        example = next((x for x in tensors if is_torch(x)), None)
        results = tuple(
            like(example, out[:, : port.width].reshape(*leading, port.width))
            for out, port in zip(outputs, self._manifest.outputs, strict=True)
        )
        return results if len(results) > 1 else results[0]


def _leading(arrays: list[Array], ports: tuple[Port, ...]) -> tuple[int, ...]:
    """The dimensions that all inputs share, once every input is known to fit its port."""
    found = set()
    for array, port in zip(arrays, ports, strict=True):
        ids = port.dtype == "int64"
        if array.dtype.kind not in ("iu" if ids else "fiu"):
            raise InputError(port.name, f"is {array.dtype}", f"Pass {port.dtype}")
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
    """`array` as the kernel reads it: itself where possible, else copied into padded rows."""
    if port.dtype == "int64":
        return np.require(array.reshape(-1), np.int64, ["C", "A", "W"])
    flat = array.reshape(-1, port.width)
    fits = (
        port.stride == port.width and flat.dtype == np.float32 and flat.ctypes.data % ALIGNMENT == 0
    )
    if fits and flat.flags.c_contiguous and flat.flags.writeable:
        return flat
    rows = aligned_empty((len(flat), port.stride), np.float32)
    rows[:, : port.width] = flat
    rows[:, port.width :] = 0
    return rows
