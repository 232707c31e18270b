"""The data of tensors: in the model, or outside of it above the 2 GiB of protocol buffers."""

from __future__ import annotations

import hashlib
from itertools import accumulate

import numpy as np
from onnx import TensorProto

from mmfree_compiler.artifact import ALIGNMENT, aligned_empty
from mmfree_compiler.backends.onnx.compile.model import Made
from mmfree_compiler.backends.onnx.file import data_name
from mmfree_compiler.backends.ternary import Bytes


def embed(made: Made) -> None:
    """Put the data into the model."""
    for tensor in made.proto.graph.initializer:
        if tensor.name in made.data:
            tensor.raw_data = made.data[tensor.name].tobytes()


def moved_out(made: Made) -> tuple[Bytes, str]:
    """The data as one array, 1-D uint8, and the name of the file that the model expects it in.

    Each tensor begins at a multiple of ALIGNMENT.
    """
    sizes = [-(-data.nbytes // ALIGNMENT) * ALIGNMENT for data in made.data.values()]
    starts = dict(zip(made.data, accumulate(sizes, initial=0), strict=False))
    whole = aligned_empty(sum(sizes), np.uint8)
    whole[:] = 0
    for name, data in made.data.items():
        whole[starts[name] : starts[name] + data.nbytes] = data.reshape(-1).view(np.uint8)
    location = data_name(hashlib.sha256(whole.data).hexdigest())
    for tensor in made.proto.graph.initializer:
        if tensor.name in made.data:
            length = made.data[tensor.name].nbytes
            place = {"location": location, "offset": starts[tensor.name], "length": length}
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
            tensor.data_location = TensorProto.EXTERNAL
    return whole, location
