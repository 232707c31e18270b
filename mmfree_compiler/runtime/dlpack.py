"""Reading DLPack: where the capsules of `__dlpack__` say that their arrays are.

The structures are those of dlpack.h, https://dmlc.github.io/dlpack/latest/c_api.html.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

# DLPack's device types of memory that the host reads: its own, and what it pinned for a GPU.
HOST = (1, 3)
NO_ORDER = -1  # the stream that `__dlpack__` is given by those who order the work themselves

_NAME = b"dltensor"
# DLPack's device type -> a device of it, by its number.
_DEVICES = {
    1: "the host",
    2: "CUDA device {}",
    3: "the host (pinned memory of CUDA)",
    4: "OpenCL device {}",
    7: "Vulkan device {}",
    8: "Metal device {}",
    10: "ROCm device {}",
    11: "the host (pinned memory of ROCm)",
    13: "CUDA device {} (managed memory)",
    14: "oneAPI device {}",
    15: "WebGPU device {}",
}
# DLPack's type code -> NumPy's kind, and how many bytes its numbers have.
_KINDS = {0: ("i", 1, 2, 4, 8), 1: ("u", 1, 2, 4, 8), 2: ("f", 2, 4, 8), 5: ("c", 8, 16), 6: "b1"}
# (code, bits, lanes) -> dtype
_DTYPES = {
    (code, 8 * int(size), 1): np.dtype(f"{kind}{size}")
    for code, (kind, *sizes) in _KINDS.items()
    for size in sizes
}


class DLTensor(ctypes.Structure):
    """The structure of this name, with which every DLManagedTensor begins."""

    _fields_: ClassVar = [
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("ndim", ctypes.c_int32),
        ("code", ctypes.c_uint8),
        ("bits", ctypes.c_uint8),
        ("lanes", ctypes.c_uint16),
        ("shape", ctypes.POINTER(ctypes.c_int64)),
        ("strides", ctypes.POINTER(ctypes.c_int64)),
        ("byte_offset", ctypes.c_uint64),
    ]


_is_valid = ctypes.pythonapi.PyCapsule_IsValid
_is_valid.argtypes, _is_valid.restype = [ctypes.py_object, ctypes.c_char_p], ctypes.c_int
_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.argtypes, _get_pointer.restype = [ctypes.py_object, ctypes.c_char_p], ctypes.c_void_p


@dataclass(frozen=True)
class Memory:
    """`size` numbers, one after another from the address `pointer`, on a DLPack `device`."""

    device: tuple[int, int]
    dtype: np.dtype[Any]
    size: int
    pointer: int
    owner: Any = field(repr=False)  # the capsule: it may be all that keeps the numbers there


def place(device: tuple[int, int]) -> str:
    """A DLPack device in words: "CUDA device 0"."""
    kind, index = device
    return _DEVICES.get(kind, f"device {{}} of DLPack's type {kind}").format(index)


def tensor_of(capsule: Any) -> DLTensor:
    """What a capsule holds, which lives no longer than that. Raises TypeError."""
    if not _is_valid(capsule, _NAME):
        raise TypeError(f"its __dlpack__ gives no capsule of the name {_NAME.decode()}")
    return DLTensor.from_address(_get_pointer(capsule, _NAME))


def memory_of(capsule: Any) -> Memory:
    """Where a capsule's array of one dimension is. Raises TypeError, ValueError if it is not dense.

    Nobody else takes the capsule.
    """
    tensor = tensor_of(capsule)
    if tensor.ndim != 1 or not tensor.shape:
        raise ValueError(f"its capsule has {tensor.ndim} dimensions, not 1")
    size, dtype = tensor.shape[0], _dtype(tensor)
    if tensor.strides and tensor.strides[0] != 1 and size > 1:
        raise ValueError(f"its capsule has strides of {tensor.strides[0]} numbers, not 1")
    pointer = (tensor.data or 0) + tensor.byte_offset
    if size > 0 and (not tensor.data or pointer % dtype.alignment):
        raise ValueError(f"its capsule is at the address {pointer}, where no {dtype} can be")
    kind, index = tensor.device
    return Memory((kind, index), dtype, size, pointer, capsule)


def _dtype(tensor: DLTensor) -> np.dtype[Any]:
    key = (tensor.code, tensor.bits, tensor.lanes)
    if key not in _DTYPES:
        raise TypeError("its capsule has a dtype of code {}, {} bits and {} lanes".format(*key))
    return _DTYPES[key]
