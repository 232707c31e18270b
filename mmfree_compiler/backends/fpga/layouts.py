"""The layout of ternary weights in the stream: pack and unpack side by side. NumPy only.

A line of 64 bytes holds a few rows of 64 columns, byte c those of column c: five rows in base 3, or
four rows of two bits each, the first row in the lowest digit. Digits are code + 1. A tile is the
lines of as many rows, and all columns.

An engine multiplies one line in a cycle, `group` engines work side by side, on the same columns of
as many tiles. So lines follow each other as they are needed: for each group of tiles, for each
block of 64 columns, the line of each tile. The last group may have fewer tiles. Rows and columns
that fill the last tile and block hold the code 0.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmfree_compiler.backends.fpga.strides import LINE, round_up
from mmfree_compiler.backends.ternary import (
    Bytes,
    Codes,
    check_codes,
    check_size,
    damaged,
    digits_of,
)


@dataclass(frozen=True)
class Density:
    """`rows` digits in a byte: digit r is `byte // base^r % base`."""

    bits: float
    rows: int
    base: int


DENSITIES = {"2": Density(2, 4, 4), "1.6": Density(1.6, 5, 3)}


@dataclass(frozen=True)
class Trits:
    """The layout of one density, a key of DENSITIES, for `group` engines."""

    density: str
    group: int

    @property
    def name(self) -> str:
        return f"lines_{self.density}bit_{self.group}"

    @property
    def packing(self) -> Density:
        return DENSITIES[self.density]

    def tiles(self, rows: int) -> int:
        """The number of tiles of a weight with `rows` rows."""
        return -(-rows // self.packing.rows)

    def blocks(self, columns: int) -> int:
        """The number of blocks of a weight with `columns` columns."""
        return -(-columns // LINE)

    def lines(self, shape: tuple[int, int]) -> int:
        """Lines of a packed weight (N, K)."""
        return self.tiles(shape[0]) * self.blocks(shape[1])

    def pack(self, codes: Codes) -> Bytes:
        """Codes (N, K) int8 in {-1, 0, 1} -> uint8 (lines, 64).

        Raises InputError on another dtype, another rank or another code.
        """
        check_codes(codes)
        rows, base = self.packing.rows, self.packing.base
        padded = round_up(codes.shape[0], rows), round_up(codes.shape[1], LINE)
        digits = digits_of(codes, np.empty(padded, np.uint8))
        digits = digits.reshape(-1, rows, padded[1] // LINE, LINE)
        packed = digits[:, rows - 1].copy()  # (tiles, blocks, 64)
        for row in reversed(range(rows - 1)):
            packed *= base
            packed += digits[:, row]
        return np.concatenate([_swapped(part) for part in self._groups(packed)])

    def unpack(self, packed: Bytes, shape: tuple[int, int]) -> Codes:
        """The inverse of `pack`: codes (N, K) int8 from lines of any shape.

        Raises ArtifactError if the size differs or a byte is one that `pack` never writes.
        """
        check_size(self.name, shape, packed.nbytes, self.lines(shape) * LINE)
        tiles, blocks = self.tiles(shape[0]), self.blocks(shape[1])
        lines = np.ascontiguousarray(packed).view(np.uint8).reshape(tiles, blocks, LINE)
        whole = tiles - tiles % self.group
        groups = lines[:whole].reshape(-1, blocks, self.group, LINE)
        last = lines[whole:].reshape(1, blocks, tiles - whole, LINE)
        ordered = [part.swapaxes(1, 2).reshape(-1, blocks, LINE) for part in (groups, last)]
        digits = self._digits(np.concatenate(ordered))
        if digits.max(initial=0) > 2:
            raise damaged(self.name, shape, "holds codes that are not ternary")
        codes: Codes = digits.reshape(-1, blocks * LINE)[: shape[0], : shape[1]].view(np.int8) - 1
        return codes

    def _groups(self, packed: Bytes) -> list[Bytes]:
        """(groups, group, blocks, 64) of the whole groups, and of the last, smaller one."""
        whole = len(packed) - len(packed) % self.group
        first = packed[:whole].reshape(-1, self.group, *packed.shape[1:])
        return [first, packed[whole:][None]]

    def _digits(self, lines: Bytes) -> Bytes:
        """(tiles, rows, blocks, 64); above 2 in a byte that `pack` never writes."""
        rows, base = self.packing.rows, self.packing.base
        rest, digits = lines, np.empty((len(lines), rows, *lines.shape[1:]), np.uint8)
        for row in range(rows):
            rest, digits[:, row] = np.divmod(rest, np.uint8(base))
        digits[:, rows - 1] += np.uint8(base) * rest
        return digits


def _swapped(part: Bytes) -> Bytes:
    """Lines (n, 64) of groups (groups, tiles, blocks, 64), block by block."""
    return part.swapaxes(1, 2).reshape(-1, LINE)
