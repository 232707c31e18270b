"""kernels/row_ring.py in Triton's interpreter, which has no shared memory.

Rows arrive when a kernel waits for them and no earlier. Those that have not arrived, or give way to
others, cannot be read; tokens beyond the end of a sequence are NaN.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import triton.language as tl

_under_way: list[Callable[[], None]] = []  # of the program that runs


@dataclass
class _Row:
    values: Any = None

    def load(self, _: object = None) -> Any:
        assert self.values is not None, "has not arrived"
        return self.values


@dataclass
class _Ring:
    rows: list[_Row]
    columns: int

    def index(self, place: Any) -> _Row:
        return self.rows[operator.index(place)]


def column_layout(_: int) -> None:
    """Triton chooses it."""


def opened(
    rows: Any, strides: Any, first: Any, end: Any, stages: Any, tokens: int, columns: int
) -> tuple[_Ring, ...]:
    _under_way.clear()
    count = operator.index(stages) * tokens
    rings = tuple(_Ring([_Row() for _ in range(count)], columns) for _ in rows)
    for block in range(operator.index(stages)):
        fill(rings, rows, strides, first, end, block, tokens)
    return rings


def fill(
    rings: tuple[_Ring, ...], rows: Any, strides: Any, first: Any, end: Any, block: Any, tokens: int
) -> None:
    start = operator.index(block) * tokens
    copies = []
    for ring, source, stride in zip(rings, rows, strides, strict=True):
        column = tl.program_id(0) * ring.columns + tl.arange(0, ring.columns)
        for number in range(start, start + tokens):
            token, row = first + number, ring.index(number % len(ring.rows))
            row.values = None
            width = stride if operator.index(token) < operator.index(end) else 0
            copies.append((row, source + token * stride + column, column < width))

    def arrive() -> None:
        for row, at, mask in copies:
            row.values = tl.load(at, mask=mask, other=float("nan"))

    _under_way.append(arrive)


def wait(blocks: Any) -> None:
    while len(_under_way) > operator.index(blocks):
        _under_way.pop(0)()
