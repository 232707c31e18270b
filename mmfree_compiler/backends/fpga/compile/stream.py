"""The stream: weights and rows of constants in the order in which a program takes them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.backends.fpga.strides import FLOATS, LINE, row_lines
from mmfree_compiler.program import DENSE, Array, Constant, Layout, Role

NUMBERS = "numbers "  # begins the names of items that instructions need, and no model has


@dataclass(frozen=True)
class Rows:
    """The layout of a short convolution's taps (D, k): k rows of whole lines."""

    name: str = "rows"

    def pack(self, taps: Array) -> Array:
        width, count = taps.shape
        padded = np.zeros((count, row_lines(width) * FLOATS), np.float32)
        padded[:, :width] = taps.T
        return padded

    def unpack(self, part: Array, shape: tuple[int, ...]) -> Array:
        """The inverse of `pack`: taps (D, k)."""
        return part.reshape(shape[1], -1)[:, : shape[0]].T


ROWS = Rows()


@dataclass(frozen=True)
class Item:
    """What one instruction takes from the stream: another of `parts` in each iteration of a loop,
    or the same one. The other fields are those of a program.Constant.
    """

    name: str
    parts: tuple[Array, ...] = field(repr=False)
    dtype: str
    shape: tuple[int, ...]
    role: Role = "row"
    layout: Layout = DENSE

    @property
    def lines(self) -> int:
        """Lines of one part."""
        return -(-self.parts[0].nbytes // LINE)

    def constant(self, name: str, iteration: int) -> Constant:
        """One part as a Constant."""
        part = self.parts[iteration if len(self.parts) > 1 else 0]
        return Constant(name, self.dtype, self.shape, (part,), self.role, self.layout)


def weight(constant: Constant) -> Item:
    """A packed weight."""
    return Item(
        constant.name,
        constant.parts,
        constant.dtype,
        constant.shape,
        constant.role,
        constant.layout,
    )


def floats(
    name: str, parts: Iterable[Array], layout: Layout = DENSE, shape: tuple[int, ...] = ()
) -> Item:
    """Rows of fp32 values, as bfloat16 where that is exact for all parts.

    `shape` is that of the parts unless they have a layout of their own.
    """
    rows = tuple(np.ascontiguousarray(part, np.float32) for part in parts)
    bits = [row.view(np.uint32) for row in rows]
    halves = all(not (x & 0xFFFF).any() for x in bits)
    stored = tuple((x >> 16).astype(np.uint16) for x in bits) if halves else rows
    role: Role = "row" if layout is DENSE else "taps"
    dtype = "bfloat16" if halves else "float32"
    return Item(name, stored, dtype, shape or rows[0].shape, role, layout)


def plain_floats(constant: Constant) -> NDArray[np.float32]:
    """All parts of a constant of floats, (parts, *shape)."""
    array = np.stack([constant.array(part) for part in range(len(constant.parts))])
    if constant.dtype == "bfloat16":  # its bits are the upper half of a float32's
        return (array.astype(np.uint32) << 16).view(np.float32)
    return array.astype(np.float32)
