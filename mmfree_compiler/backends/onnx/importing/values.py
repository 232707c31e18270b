"""Values while a model is imported: tensors, and what is known when it is read.

Numbers are Python's, vectors of integers are tuples: sizes, axes and indices, which torch wants as
such. A tuple may have symbolic sizes in it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

Value = Any  # Tensor, int, float, bool, a tuple of ints, or None for what is left out

ROUNDING = 2.0**-20  # how far a weight may be from its code
MAX_SIZES = 64  # a longer vector of integers is a tensor


def plain(tensor: Tensor) -> Value:
    """A constant as it is used: a number, a tuple of integers, or the tensor."""
    if tensor.dim() == 0:
        return tensor.item()
    is_sizes = tensor.dtype in (torch.int64, torch.int32) and tensor.numel() <= MAX_SIZES
    return tuple(tensor.tolist()) if tensor.dim() == 1 and is_sizes else tensor


def ternary(tensor: Tensor) -> Tensor:
    """A float matrix whose values are -c, 0 and c but for rounding, as exactly these.

    An exporter that folds constants computes `w + (q - w)`, which is q but for rounding.
    """
    if tensor.dtype != torch.float32 or tensor.dim() != 2 or not tensor.numel():
        return tensor
    scale = tensor.abs().max()
    codes = (tensor / scale).round()
    is_close = bool(((tensor / scale - codes).abs() <= ROUNDING).all())
    return codes * tensor[codes != 0].abs().median() if is_close else tensor


def axes_of(x: Tensor, axes: Value) -> list[int]:
    """Axes counted from the last, which is -1."""
    listed = [axes] if isinstance(axes, int) else list(axes)
    return [axis if axis < 0 else axis - x.dim() for axis in listed]


def each(function: Callable[..., Value], *operands: Value) -> Value:
    """`function` of numbers and tensors, or of the items of tuples."""
    sizes = [len(x) for x in operands if isinstance(x, tuple)]
    if not sizes or any(isinstance(x, Tensor) for x in operands):
        return function(*(_as_tensor(x) for x in operands))
    columns = [x if isinstance(x, tuple) else (x,) * max(sizes) for x in operands]
    return tuple(function(*items) for items in zip(*columns, strict=True))


def _as_tensor(x: Value) -> Value:
    return torch.tensor(x) if isinstance(x, tuple) else x
