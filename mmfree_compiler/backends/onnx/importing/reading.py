"""Reading an ONNX model that anybody may have made: damage and tricks are errors, not crashes."""

from __future__ import annotations

import math
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import numpy as np
import onnx
import torch
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from onnx import TensorProto, helper, inliner, numpy_helper
from torch import Tensor

from mmfree_compiler.backends.onnx.names import DOMAIN
from mmfree_compiler.errors import CheckpointError

OPSETS = range(13, 29)
MAX_NODES = 200_000
# Types of less than a byte -> their bits.
PACKED: dict[int, int] = {
    TensorProto.INT2: 2,
    TensorProto.UINT2: 2,
    TensorProto.INT4: 4,
    TensorProto.UINT4: 4,
}
_MISPLACED = {("", "SimplifiedLayerNormalization")}
_GET = "Export or get the model again"


def read_model(path: Path) -> onnx.ModelProto:
    """The model at `path`, checked, with all functions but this package's own written out.

    Raises CheckpointError.
    """
    model = onnx.ModelProto()
    try:
        if not path.is_file():  # opening a pipe would wait forever
            cause = "is not a regular file" if path.exists() else "does not exist"
            raise CheckpointError(str(path), cause, "Check the path")
        if path.stat().st_size >= 1 << 31:
            hint = "Save its tensors as external data"
            raise CheckpointError(str(path), "is larger than 2 GiB", hint)
        model.ParseFromString(path.read_bytes())
    except OSError as error:
        raise CheckpointError(str(path), f"cannot be read: {error.strerror}", _GET) from error
    except DecodeError as error:
        raise CheckpointError(str(path), f"is not an ONNX model: {error}", _GET) from error
    if any(isinstance(text, bytes) for text in _texts(model)):
        raise CheckpointError(str(path), "has a name that is not UTF-8", _GET)
    _check_size(path, model)
    _check_calls(path, model)
    _check_opset(path, model)
    _rename(model)
    is_whole = all(t.data_location != TensorProto.EXTERNAL for t in model.graph.initializer)
    try:
        # A model in memory has no folder.
        onnx.checker.check_model(model if is_whole else str(path), check_custom_domain=False)
    except (onnx.checker.ValidationError, RuntimeError) as error:  # the latter of file systems
        cause = f"is not a valid ONNX model: {_first_line(error)}"
        raise CheckpointError(str(path), cause, _GET) from error
    own = [(f.domain, f.name) for f in model.functions if f.domain == DOMAIN]
    return inliner.inline_selected_functions(model, own, exclude=True)


def _texts(message: Message) -> Iterator[str | bytes]:
    """All names: protobuf gives what is not UTF-8 as bytes."""
    for kind, value in message.ListFields():
        values = value if kind.is_repeated else [value]
        if kind.type == kind.TYPE_STRING:
            yield from values
        elif kind.type == kind.TYPE_MESSAGE:
            for part in values:
                yield from _texts(part)


def _rename(model: onnx.ModelProto) -> None:
    """Give operators of ONNX Runtime that stand among ONNX's own the domain they have elsewhere."""
    found = [node for node in model.graph.node if (node.domain, node.op_type) in _MISPLACED]
    for node in found:
        node.domain = "com.microsoft"
    if found and all(x.domain != "com.microsoft" for x in model.opset_import):
        model.opset_import.append(helper.make_opsetid("com.microsoft", 1))


def _check_size(path: Path, model: onnx.ModelProto) -> None:
    """Raise CheckpointError on a model of too many nodes, or without any."""
    count = len(model.graph.node) + sum(len(f.node) for f in model.functions)
    if not 0 < count <= MAX_NODES:
        hint = f"A model has 1 to {MAX_NODES:,}"
        raise CheckpointError(str(path), f"has {count:,} nodes", hint)


def _check_calls(path: Path, model: onnx.ModelProto) -> None:
    """Raise CheckpointError on functions that call each other in a circle, or too often."""
    sizes: dict[tuple[str, str], int] = {}
    functions = {(f.domain, f.name): f for f in model.functions}
    calls = {
        name: {(n.domain, n.op_type) for n in f.node} & functions.keys()
        for name, f in functions.items()
    }
    try:
        for name in TopologicalSorter(calls).static_order():
            nodes = functions[name].node
            sizes[name] = sum(sizes.get((n.domain, n.op_type), 1) for n in nodes)
    except CycleError as error:
        cause = "has functions that call each other in a circle"
        raise CheckpointError(str(path), cause, _GET) from error
    written_out = sum(sizes.get((n.domain, n.op_type), 1) for n in model.graph.node)
    if written_out > MAX_NODES:
        hint = f"A model has at most {MAX_NODES:,}"
        raise CheckpointError(str(path), f"has {written_out:,} nodes in its functions", hint)


def _check_opset(path: Path, model: onnx.ModelProto) -> None:
    found = [x.version for x in model.opset_import if x.domain in ("", "ai.onnx")]
    if len(found) != 1 or found[0] not in OPSETS:
        named = f"opset {found[0]}" if found else "no opset"
        hint = f"Export it with one from {OPSETS[0]} to {OPSETS[-1]}, such as 18"
        raise CheckpointError(str(path), f"uses {named} of ONNX", hint)


def constants(path: Path, model: onnx.ModelProto) -> Iterator[tuple[str, Tensor]]:
    """The initializers of a model. Raises CheckpointError."""
    for tensor in model.graph.initializer:
        yield tensor.name, to_torch(path, tensor)


def to_torch(path: Path, tensor: onnx.TensorProto) -> Tensor:
    """A tensor of the model; 2 and 4 bits stay packed, as 1-D uint8. Raises CheckpointError."""
    thing = f"{path}: tensor {tensor.name[:80]!r}"
    bits = PACKED.get(tensor.data_type)
    try:
        if tensor.data_location == TensorProto.EXTERNAL:
            tensor = _with_data(path, tensor, bits)
        if bits is not None:
            if len(tensor.raw_data) != -(-math.prod(tensor.dims) * bits // 8):
                raise ValueError("its bytes are not those of its shape")
            return torch.from_numpy(np.frombuffer(tensor.raw_data, np.uint8).copy())
        if tensor.data_type == TensorProto.BFLOAT16:
            stored = np.frombuffer(tensor.raw_data, np.int16).reshape(tensor.dims)
            return torch.from_numpy(stored.copy()).view(torch.bfloat16)
        return torch.from_numpy(np.array(numpy_helper.to_array(tensor)))
    except (ValueError, TypeError, KeyError, OSError, OverflowError) as error:
        raise CheckpointError(thing, f"cannot be read: {_first_line(error)}", _GET) from error


def _with_data(path: Path, tensor: onnx.TensorProto, bits: int | None) -> onnx.TensorProto:
    """The tensor with its data from a file in the folder of the model. Raises ValueError."""
    said = {entry.key: entry.value for entry in tensor.external_data}
    location = said.get("location", "")
    folder = path.resolve().parent
    source = (folder / location).resolve()
    if not location or not source.is_relative_to(folder) or not source.is_file():
        raise ValueError(f"its data is in {location[:80]!r}, which is not a file in its folder")
    offset, size = int(said.get("offset", 0)), source.stat().st_size
    item = helper.tensor_dtype_to_np_dtype(tensor.data_type).itemsize
    elements = math.prod(tensor.dims)
    expected = elements * item if bits is None else -(-elements * bits // 8)
    length = int(said.get("length", expected))
    if offset < 0 or length != expected or offset + length > size:
        raise ValueError(f"its {expected} bytes are not in {location[:80]!r}")
    made = TensorProto(name=tensor.name, data_type=tensor.data_type, dims=tensor.dims)
    with source.open("rb") as file:
        file.seek(offset)
        made.raw_data = file.read(length)
    return made


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0][:200].rstrip(".")
