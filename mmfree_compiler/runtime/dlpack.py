"""Reading DLPack: where the capsules of `__dlpack__` say that their arrays are.

The structures are those of dlpack.h, https://dmlc.github.io/dlpack/latest/c_api.html.
"""

from __future__ import annotations

import ctypes
from typing import Any, ClassVar

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


class _Tensor(ctypes.Structure):
    """DLTensor, with which every DLManagedTensor begins."""

    _fields_: ClassVar = [
        ("data", ctypes.c_void_p),
        ("device", ctypes.c_int32 * 2),
        ("ndim", ctypes.c_int32),
        ("dtype", ctypes.c_uint32),
        ("shape", ctypes.c_void_p),
        ("strides", ctypes.c_void_p),
        ("byte_offset", ctypes.c_uint64),
    ]


_get_pointer = ctypes.pythonapi.PyCapsule_GetPointer
_get_pointer.argtypes, _get_pointer.restype = [ctypes.py_object, ctypes.c_char_p], ctypes.c_void_p


def place(device: tuple[int, int]) -> str:
    """A DLPack device in words: "CUDA device 0"."""
    kind, index = device
    return _DEVICES.get(kind, f"device {{}} of DLPack's type {kind}").format(index)


def address(capsule: Any) -> int:
    """Where the first element of a capsule's array is. Raises ValueError if it is not a capsule.

    The array owns its memory, not the capsule, which nobody else takes.
    """
    tensor = _Tensor.from_address(_get_pointer(capsule, _NAME))
    return int(tensor.data or 0) + int(tensor.byte_offset)
