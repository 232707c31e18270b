"""Tensors outside the model, for models above the 2 GiB of protocol buffers."""

from __future__ import annotations

import hashlib

import numpy as np
import onnx
from onnx import TensorProto

from mmfree_compiler.artifact import ALIGNMENT, aligned_empty
from mmfree_compiler.backends.onnx.file import data_name
from mmfree_compiler.backends.ternary import Bytes

_LEAST = 1024  # bytes of a tensor that is moved


def moved_out(model: onnx.ModelProto) -> tuple[Bytes, str]:
    """Take the data of large tensors out of `model`: 1-D uint8, and the file that it names.

    Each begins at a multiple of ALIGNMENT.
    """
    tensors = [tensor for tensor in model.graph.initializer if len(tensor.raw_data) >= _LEAST]
    offsets, size = [], 0
    for tensor in tensors:
        offsets.append(size)
        size += -(-len(tensor.raw_data) // ALIGNMENT) * ALIGNMENT
    data = aligned_empty(size, np.uint8)
    data[:] = 0
    for tensor, offset in zip(tensors, offsets, strict=True):
        data[offset : offset + len(tensor.raw_data)] = np.frombuffer(tensor.raw_data, np.uint8)
    location = data_name(hashlib.sha256(data.data).hexdigest())
    for tensor, offset in zip(tensors, offsets, strict=True):
        place = {"location": location, "offset": offset, "length": len(tensor.raw_data)}
        for key, value in place.items():
            tensor.external_data.add(key=key, value=str(value))
        tensor.data_location = TensorProto.EXTERNAL
        tensor.ClearField("raw_data")
    return data, location
