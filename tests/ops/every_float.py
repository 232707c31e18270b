"""Measure the references of exp, sigmoid, silu and tanh on every fp32 number.

    python tests/ops/every_float.py [STEP]      STEP 1 (all) takes about an hour of one CPU

Distances are in ulp: in units of the last place of the true value, at least 2^-149. The nearest
fp32 number counts as 0.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmfree_compiler.ops import OPS

Floats = NDArray[np.float32]
Doubles = NDArray[np.float64]

BLOCK = 1 << 20
INFINITY = 0x7F800000  # its bits; those of the finite magnitudes are below
OVERFLOW = np.float32(np.log(np.finfo(np.float32).max))  # e^x of a larger x is infinite


def _sigmoid(x: Doubles) -> Doubles:
    """Zero where e^-x is infinite in fp32, as in torch."""
    return np.where(x < -OVERFLOW, 0.0, 1 / (1 + np.exp(-x)))


TRUE: dict[str, Callable[[Doubles], Doubles]] = {
    "exp": np.exp,
    "sigmoid": _sigmoid,
    "silu": lambda x: x * _sigmoid(x),
    "tanh": np.tanh,
}


@dataclass
class Found:
    """The largest distance and where it is; how often the next number's value is less."""

    ulp: float = 0.0
    at: float = 0.0
    falls: int = 0


def measure(step: int) -> tuple[dict[str, Found], float]:
    """For each function what was found, and how far sigmoid(x) + sigmoid(-x) is from 1, in ulp."""
    found, asymmetry = {name: Found() for name in TRUE}, 0.0
    last = dict.fromkeys(TRUE, np.float32(-np.inf))
    for x in _ascending(step):
        for name, true in TRUE.items():
            y = _computed(name, x)
            _compare(found[name], x, y, true(x.astype(np.float64)))
            before = np.concatenate([[last[name]], y[:-1]])
            found[name].falls += int((y < before).sum())
            last[name] = y[-1]
        pair = _computed("sigmoid", x) + _computed("sigmoid", -x)
        asymmetry = max(asymmetry, float(abs(pair - 1).max() * 2**23))
    return found, asymmetry


def _ascending(step: int) -> Iterator[Floats]:
    """Every `step`-th finite number, from the least to the greatest, in blocks."""
    span = BLOCK * step
    for sign, starts in ((1 << 31, range(0, INFINITY, span)), (0, range(0, INFINITY, span))):
        for start in reversed(starts) if sign else starts:
            bits = np.arange(start, min(start + span, INFINITY), step, dtype=np.uint32)
            x = (bits | np.uint32(sign)).view(np.float32)
            yield x[::-1].copy() if sign else x


def _computed(name: str, x: Floats) -> Floats:
    reference: Any = OPS[name].reference
    return np.asarray(reference(torch.from_numpy(x)).numpy(), np.float32)


def _compare(found: Found, x: Floats, y: Floats, true: Doubles) -> None:
    with np.errstate(over="ignore", invalid="ignore"):
        nearest = true.astype(np.float32)
        distance = abs(y - true) / np.spacing(abs(nearest)).astype(np.float64)
    distance[y == nearest] = 0  # also where both are infinite
    distance[np.isnan(distance)] = np.inf
    worst = int(distance.argmax())
    if distance[worst] > found.ulp:
        found.ulp, found.at = float(distance[worst]), float(x[worst])


def main() -> None:
    found, asymmetry = measure(int(sys.argv[1]) if len(sys.argv) > 1 else 1)
    for name, f in found.items():
        print(f"{name}: {f.ulp:.3f} ulp at {f.at!r}; falls {f.falls:,} times")
    print(f"sigmoid(x) + sigmoid(-x): within {asymmetry:.0f} ulp of 1")


if __name__ == "__main__":
    with np.errstate(over="ignore", under="ignore"):
        main()
