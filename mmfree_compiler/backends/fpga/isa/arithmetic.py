"""The arithmetic of the units, in NumPy: the steps of docs/arithmetic.md, on rows (M, width)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler import elementary as e
from mmfree_compiler.backends.exp import exp

Floats = NDArray[np.float32]

ONE = np.float32(1)
_CODE_MAX, _LEAST_PEAK, _NAN = np.float32(e.CODE_MAX), np.float32(e.LEAST_PEAK), np.float32(np.nan)


def sigmoid(x: Floats) -> Floats:
    return ONE / (ONE + exp(-x))


def silu(x: Floats) -> Floats:
    return x * sigmoid(x)


def tanh(x: Floats) -> Floats:
    z, size = x * x, np.abs(x)
    total = z * np.float32(e.TANH[0]) + np.float32(e.TANH[1])
    for coefficient in e.TANH[2:]:
        total = total * z + np.float32(coefficient)
    near = x + x * (z * total)
    far = ONE - np.float32(2) / (exp(size + size) + ONE)
    return np.copysign(np.where(size < np.float32(e.TANH_NEAR), near, far), x)


def maximum(x: Floats, y: Floats) -> Floats:
    return np.where((x == 0) & (y == 0), x + y, np.maximum(x, y))


def minimum(x: Floats, y: Floats) -> Floats:
    return -maximum(-x, -y)


def relu(x: Floats) -> Floats:
    return np.where(x < 0, np.float32(0), x)


def mean_square(x: Floats) -> Floats:
    """(M, K) -> (M, 1)."""
    fixed, down = _fixed(x)
    total = np.einsum("mk,mk->m", fixed, fixed)[:, None].astype(np.float32)
    result: Floats = total * down * down / np.float32(x.shape[1])
    return result


def mean(x: Floats) -> Floats:
    """(M, K) -> (M, 1)."""
    fixed, down = _fixed(x)
    total = fixed.sum(1, keepdims=True).astype(np.float32)
    result: Floats = total / np.float32(x.shape[1]) * down
    return result


def rstd(square: Floats, eps: np.float32) -> Floats:
    result: Floats = ONE / np.sqrt(square + eps)
    return result


def rstd_of_both(before: Floats, after: Floats, outer: np.float32, inner: np.float32) -> Floats:
    """Of a norm after a norm, from the mean squares of x and of x with the outer weight."""
    first = rstd(before, outer)
    normed = first * first * after
    second = rstd(np.where(np.isfinite(normed), normed, _NAN), inner)
    return np.where(first == 0, first, first * second)


def quantized(v: Floats, r: Floats, eps: np.float32, per_unit: np.float32) -> tuple[Floats, Floats]:
    """Codes (M, K), which are integers, and scales (M, 1), of rows v with the factors r."""
    peak = np.maximum(np.abs(v).max(1, keepdims=True), _LEAST_PEAK)
    absmax = peak * r
    tiny, finite = absmax < eps, np.isfinite(absmax)
    inverse = np.where(tiny, r * per_unit, _CODE_MAX / peak)
    codes = np.clip(np.rint(v * inverse), np.float32(-128), _CODE_MAX)
    worth: Floats = np.where(finite, np.where(tiny, eps, absmax), _NAN)
    return np.where(finite & ~np.isnan(codes), codes, np.float32(0)), worth / _CODE_MAX


def _fixed(x: Floats) -> tuple[NDArray[np.int64], Floats]:
    """Rows as integers, and what one is worth in each row; NaN for a row that is not finite."""
    peak = np.abs(x).max(1, keepdims=True)
    exponent = np.maximum((peak.view(np.int32) >> 23) - 126, e.LEAST_EXPONENT)
    down = np.where(np.isfinite(peak), _power_of_two(exponent - e.FIXED_BITS), _NAN)
    return np.rint(x * _power_of_two(e.FIXED_BITS - exponent)).astype(np.int64), down


def _power_of_two(n: NDArray[np.int32]) -> Floats:
    return ((n + np.int32(127)) << 23).astype(np.int32).view(np.float32)
