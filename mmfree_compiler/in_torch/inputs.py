"""What calls of a compiled module take: tensors and numbers of sequences, checked."""

from __future__ import annotations

from numbers import Integral

import torch
from torch import Tensor

from mmfree_compiler.artifact import Port
from mmfree_compiler.errors import InputError, StateError
from mmfree_compiler.wording import given

MOST = 2**31 - 1  # sequences of a call: their numbers are int32

_SIGNED = {torch.int8, torch.int16, torch.int32, torch.int64}
_UNSIGNED = {torch.uint8, torch.uint16, torch.uint32, torch.uint64}
_FLOATS = {torch.bfloat16, torch.float16, torch.float32, torch.float64}
_FLOAT8 = {torch.float8_e4m3fn, torch.float8_e4m3fnuz, torch.float8_e5m2, torch.float8_e5m2fnuz}
_IDS = _SIGNED | _UNSIGNED
_ROWS = _IDS | _FLOATS | _FLOAT8 | {torch.float8_e8m0fnu}
# A port's dtype -> that dtype in torch, those that are converted to it, and their name for people.
_DTYPES = {
    "int64": (torch.int64, _IDS, "integers (int64)"),
    "float32": (torch.float32, _ROWS, "float32"),
}


def checked_input(x: Tensor, name: str, port: Port, device: torch.device) -> Tensor:
    """An input with the dtype of its port. Raises an InputError that names it."""
    dtype, taken, named = _DTYPES[port.dtype]
    wrong = _misplaced(x, device)
    if wrong:
        raise InputError(name, wrong, f"Pass a dense tensor on {device}")
    if x.dtype not in taken:
        raise InputError(name, f"has dtype {x.dtype}", f"Pass {named}")
    if x.numel() == 0 or (port.dtype == "float32" and x.shape[-1:] != (port.width,)):
        cause = f"has shape {tuple(x.shape)}"
        raise InputError(name, cause, f"Pass {port.shape}, at least one row")
    return x.to(dtype)


def checked_state(state: Tensor, shape: tuple[int, int], device: torch.device) -> Tensor:
    """The state itself. Raises StateError if it is not one of this shape."""
    if _misplaced(state, device) or state.shape != shape or state.dtype != torch.float32:
        cause = f"is not of shape {shape}, float32, dense, on {device}"
        raise StateError("state", cause, "Pass one that this module returned, or zeros(batch)")
    return state


def checked_batch(batch: int) -> int:
    """A number of sequences. Raises InputError."""
    whole = isinstance(batch, Integral) and not isinstance(batch, bool)
    if not whole or not 1 <= batch <= MOST:
        cause = f"{given(batch)} is not a whole number from 1 to {MOST:,}"
        raise InputError("batch", cause, "Choose the number of sequences")
    return batch


def _misplaced(x: Tensor, device: torch.device) -> str:
    """What keeps kernels from reading `x` where it is; empty if nothing does."""
    if not isinstance(x, Tensor):
        return "is not a tensor"
    if x.layout != torch.strided or x.is_nested:
        return "is sparse or nested"
    return "" if x.device == device else f"is on {x.device}"
