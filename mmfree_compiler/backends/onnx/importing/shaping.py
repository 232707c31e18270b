"""Operators that move values or compute sizes, in the table SHAPING: see operators.py."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from onnx import helper
from torch import Tensor

from mmfree_compiler.backends.onnx.importing.values import Value, axes_of
from mmfree_compiler.errors import CheckpointError

Attributes = Mapping[str, Any]

MAX_ELEMENTS = 1 << 31  # of what one operator makes


def torch_type(kind: int) -> torch.dtype:
    """The torch dtype of a TensorProto's data type. Raises KeyError, AttributeError, TypeError."""
    return torch.from_numpy(np.zeros(0, helper.tensor_dtype_to_np_dtype(kind))).dtype


def _cast(attributes: Attributes, x: Value) -> Value:
    kind = torch_type(attributes["to"])
    if isinstance(x, Tensor):
        return x.to(kind)
    number = float if kind.is_floating_point else int
    return tuple(map(number, x)) if isinstance(x, tuple) else number(x)


def _shape(attributes: Attributes, x: Tensor) -> Value:
    return tuple(x.shape[attributes.get("start", 0) : attributes.get("end")])


def _gather(attributes: Attributes, x: Value, index: Value) -> Value:
    axis = attributes.get("axis", 0)
    if isinstance(x, tuple):
        return x[index] if isinstance(index, int) else tuple(x[i] for i in index)
    if isinstance(index, int):
        return x.select(axis, index)
    if isinstance(index, tuple):
        return x.index_select(axis, torch.tensor(index))
    if axis == 0 and x.dim() == 2:
        return F.embedding(index, x)
    return x.index_select(axis, index.reshape(-1)).unflatten(axis, index.shape)


def _unsqueeze(attributes: Attributes, x: Value, axes: Value = None) -> Value:
    axes = attributes.get("axes") if axes is None else axes
    if not isinstance(x, Tensor):
        return (x,)
    rank = x.dim() + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def _squeeze(attributes: Attributes, x: Value, axes: Value = None) -> Value:
    axes = attributes.get("axes") if axes is None else axes
    if isinstance(x, tuple):
        return x[0]
    return x.squeeze() if axes is None else x.squeeze(tuple(axes_of(x, axes)))


def _reshape(attributes: Attributes, x: Value, shape: Value) -> Value:
    if not isinstance(x, Tensor):
        return x if shape else x[0]
    if not attributes.get("allowzero"):
        shape = [x.shape[k] if size == 0 else size for k, size in enumerate(shape)]
    return x.reshape(_checked(shape))


def _expand(_: Attributes, x: Value, shape: Value) -> Tensor:
    tensor = x if isinstance(x, Tensor) else torch.tensor(x)
    sizes = [1] * (tensor.dim() - len(shape)) + _checked(shape)
    kept = [1] * (len(sizes) - tensor.dim()) + list(tensor.shape)
    pairs = zip(sizes, kept, strict=True)
    return tensor.broadcast_to([own if size == 1 else size for size, own in pairs])


def _concat(attributes: Attributes, *parts: Value) -> Value:
    if all(isinstance(part, tuple) for part in parts):
        return tuple(item for part in parts for item in part)
    return torch.cat(parts, attributes["axis"])


def _slice(
    attributes: Attributes,
    x: Value,
    starts: Value = None,
    ends: Value = None,
    axes: Value = None,
    steps: Value = None,
) -> Value:
    starts = attributes.get("starts") if starts is None else starts
    ends = attributes.get("ends") if ends is None else ends
    axes = attributes.get("axes") if axes is None else axes
    axes = range(len(starts)) if axes is None else axes
    steps = (1,) * len(starts) if steps is None else steps
    parts = [slice(*each) for each in zip(starts, ends, steps, strict=True)]
    if isinstance(x, tuple):
        return x[parts[0]]
    at = [slice(None)] * x.dim()
    for axis, part in zip(axes, parts, strict=True):
        at[axis] = part
    return x[tuple(at)]


def _split(attributes: Attributes, x: Tensor, sizes: Value = None) -> Value:
    axis = attributes.get("axis", 0)
    sizes = attributes.get("split") if sizes is None else sizes
    if sizes is not None:
        return tuple(torch.split(x, list(sizes), axis))
    count = attributes.get("num_outputs") or attributes["outputs"]
    return tuple(torch.split(x, -(-x.shape[axis] // count), axis))


def _transpose(attributes: Attributes, x: Tensor) -> Tensor:
    perm = attributes.get("perm") or tuple(reversed(range(x.dim())))
    return x.t() if x.dim() == 2 and tuple(perm) == (1, 0) else x.permute(*perm)


def _filled(attributes: Attributes, shape: Value) -> Value:
    value = attributes.get("value")
    number = 0.0 if value is None else value.reshape(-1)[0].item()
    kind = torch.float32 if value is None else value.dtype
    if kind == torch.int64 and len(shape) == 1:
        return (number,) * _checked(shape)[0]
    return torch.full(_checked(shape), number, dtype=kind)


def _checked(shape: Value) -> list[int]:
    """Sizes that memory may have. Raises CheckpointError on others."""
    known = [size for size in shape if isinstance(size, int)]
    if math.prod(max(size, 1) for size in known) > MAX_ELEMENTS:
        cause = f"makes a tensor of shape {tuple(known)}"
        raise CheckpointError("ONNX model", cause, f"{MAX_ELEMENTS:,} elements are the most")
    return list(shape)


SHAPING: dict[str, Callable[..., Value]] = {
    "Cast": _cast,
    "Concat": _concat,
    "ConstantOfShape": _filled,
    "Expand": _expand,
    "Flatten": lambda attributes, x: x.flatten(attributes.get("axis", 1)),
    "Gather": _gather,
    "Reshape": _reshape,
    "Shape": _shape,
    "Slice": _slice,
    "Split": _split,
    "Squeeze": _squeeze,
    "Transpose": _transpose,
    "Unsqueeze": _unsqueeze,
}
