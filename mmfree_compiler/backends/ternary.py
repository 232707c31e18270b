"""Ternary codes on their way into a layout and out of it: what every layout refuses."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.errors import ArtifactError, InputError

Codes = NDArray[np.int8]
Bytes = NDArray[np.uint8]


def check_codes(codes: Codes) -> None:
    """Raise InputError unless `codes` is an int8 matrix."""
    if codes.dtype != np.int8 or codes.ndim != 2:
        thing = f"ternary codes {codes.dtype} {codes.shape}"
        raise InputError(thing, "are not an int8 matrix", "Pass (N, K) int8")


def digits_of(codes: Codes, out: Bytes) -> Bytes:
    """Write code + 1 into `out`, padded with code 0. Raises InputError on another code."""
    rows, columns = codes.shape
    np.add(codes.view(np.uint8), 1, out=out[:rows, :columns])  # uint8 wraps: -1 is 255
    out[rows:] = 1
    out[:, columns:] = 1
    if out.max(initial=0) > 2:
        wrong = np.unique(codes[(codes < -1) | (codes > 1)])[:4].tolist()
        raise InputError("ternary codes", f"have values {wrong}", "Codes are -1, 0 and 1")
    return out


def check_size(layout: str, shape: tuple[int, int], found: int, expected: int) -> None:
    """Raise ArtifactError unless a packed weight of `shape` has the `expected` bytes."""
    if found != expected:
        raise damaged(layout, shape, f"has {found} bytes instead of {expected}")


def damaged(layout: str, shape: tuple[int, int], cause: str) -> ArtifactError:
    """The error for a packed weight of `shape` that no `pack` wrote."""
    return ArtifactError(f"{layout} weight of shape {shape}", cause, "Compile the model again")
