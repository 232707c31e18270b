"""NumPy in, NumPy out; torch in, torch out; nothing copied and torch never imported."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.errors import InputError

Array = NDArray[np.generic]


def is_torch(value: object) -> bool:
    """Whether `value` is a torch tensor. There is none in a process that never imported torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def to_numpy(value: Any, thing: str) -> Array:
    """`value` (an array, a torch CPU tensor, nested lists) as a NumPy array that shares its memory.

    Raises an InputError that names `thing` if NumPy cannot represent it: another device's memory,
    bfloat16, ragged lists.
    """
    try:
        return np.from_dlpack(value.detach()) if is_torch(value) else np.asarray(value)
    except (TypeError, ValueError, RuntimeError, BufferError, OverflowError) as error:
        hint = "Pass a NumPy array or a torch tensor on the CPU, int64 or float32"
        raise InputError(thing, f"cannot be read as an array: {error}", hint) from error


def like(example: object, array: Array) -> Any:
    """`array` in the framework of `example`, sharing memory."""
    return sys.modules["torch"].from_numpy(array) if is_torch(example) else array
