"""NumPy in, NumPy out; torch in, torch out; nothing copied and torch never imported."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.errors import InputError, MmfreeError

Array = NDArray[np.generic]

_HINT = "Pass a NumPy array or a dense torch tensor on the CPU, int64 or float32"


@contextmanager
def reading(thing: str, hint: str = _HINT) -> Iterator[None]:
    """A block that asks the argument `thing` for what it holds. Raises InputError if it cannot.

    A class that somebody else wrote raises whatever it likes.
    """
    try:
        yield
    except MmfreeError:
        raise
    except Exception as error:
        cause = str(error) or type(error).__name__
        raise InputError(thing, f"cannot be read as an array: {cause}", hint) from error


def is_torch(value: object) -> bool:
    """Whether `value` is a torch tensor. There is none in a process that never imported torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def to_numpy(value: Any, thing: str) -> Array:
    """`value` (an array, a torch CPU tensor, nested lists) as a NumPy array.

    It shares the memory of `value` where it can. Floats narrower than float32, such as bfloat16,
    become float32, which is exact. Raises an InputError that names `thing` if NumPy cannot
    represent it: another device's memory, sparse tensors, masked arrays, ragged lists.
    """
    with reading(thing):
        return np.from_dlpack(plain(value)) if is_torch(value) else _unmasked(value)


def plain(tensor: Any) -> Any:
    """The torch tensor with its values in memory, in a dtype of NumPy's.

    Raises TypeError on a tensor whose memory does not hold its values: subclasses that only stand
    for others (fake, masked, distributed ones), and tensors whose storage was freed.
    """
    torch = sys.modules["torch"]
    plain = type(tensor).__torch_dispatch__ is torch.Tensor.__torch_dispatch__
    tensor = tensor.detach()
    if not plain:
        raise TypeError(f"a {type(tensor).__name__} does not hold its values itself")
    # A subclass may have methods of its own, such as __dlpack__. Views may be conjugated or negated
    # lazily: their memory holds other values.
    tensor = torch.Tensor.as_subclass(tensor, torch.Tensor).resolve_conj().resolve_neg()
    if tensor.is_floating_point() and tensor.element_size() < 4:
        tensor = tensor.float()
    in_memory = not tensor.is_meta and str(tensor.layout) == "torch.strided" and tensor.numel()
    if in_memory and not tensor.data_ptr():
        raise TypeError("its memory was freed")
    return tensor


def _unmasked(value: Any) -> Array:
    if isinstance(value, np.ma.MaskedArray) and np.ma.is_masked(value):
        raise TypeError("it has masked elements")
    return np.asarray(value)


def like(example: object, array: Array) -> Any:
    """`array` in the framework of `example`, sharing memory."""
    return sys.modules["torch"].from_numpy(array) if is_torch(example) else array
