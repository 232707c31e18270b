"""Layouts of ternary weights in ONNX models, and the sentinels in rows of codes. NumPy only.

ONNX Runtime's fast kernels of 2-bit weights quantize each block of 128 activations to int8 by its
own absmax. A block here has 127 columns and a sentinel: its activation is always 127 and its weight
always 0. So the absmax is 127, the factor is exactly 1, and codes and sums stay exact.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.backends.ternary import (
    Bytes,
    Codes,
    check_codes,
    check_size,
    damaged,
    digits_of,
)

BLOCK = 128
COLUMNS = BLOCK - 1  # of a block; the last place has the sentinel
# Blocks that fast kernels multiply at once: a part of a group takes as long as a whole one.
GROUP = 4
MOST_GROWTH = 17, 16  # by which a row may grow to whole groups
# Columns from which on a sum below 2^24 may be wrong in ONNX Runtime's fast kernels.
MAX_COLUMNS = 43_944
# ONNX Runtime 1.32 returns garbage for 2-bit weights with another number of rows.
ROW_MULTIPLE = 4
_SHIFTS = np.array([0, 2, 4, 6], np.uint8)  # of the fields of a byte
_DAMAGED = 2  # what stands for a field that no code has


@dataclass(frozen=True)
class Spacing:
    """How the `columns` of a row are laid out in blocks, each with one sentinel or more.

    Rows that are whole groups of blocks keep their width: the sentinels `replace` the last column
    of each block, and these columns are the row's rest, which is multiplied apart. Other rows are
    `segments` of `width` columns with `sentinels` behind each; the last is filled up with zeros.
    """

    columns: int
    segments: int
    width: int
    sentinels: int
    replace: bool = False

    @classmethod
    def of(cls, columns: int) -> Spacing:
        """The fewest segments that need no zeros; failing this, one for each block."""
        if columns % (GROUP * BLOCK) == 0:
            return cls(columns, columns // BLOCK, COLUMNS, 1, replace=True)
        count = -(-columns // COLUMNS)
        whole = -(-count // GROUP) * GROUP
        if whole * MOST_GROWTH[1] <= count * MOST_GROWTH[0]:
            count = whole
        left = count * BLOCK - columns
        for segments in range(1, left + 1):
            if columns % segments == left % segments == 0:
                found = cls(columns, segments, columns // segments, left // segments)
                if found.reaches_each_block:
                    return found
        return cls(columns, count, COLUMNS, 1)

    @property
    def stored(self) -> int:
        """Columns and sentinels of all blocks."""
        return self.segments * (self.width + self.sentinels)

    @property
    def blocks(self) -> int:
        return self.stored // BLOCK

    @property
    def rest(self) -> int:
        """The number of columns in no block."""
        return self.segments if self.replace else 0

    @property
    def missing(self) -> int:
        """Zeros behind the last column."""
        return 0 if self.replace else self.segments * self.width - self.columns

    @property
    def is_sentinel(self) -> NDArray[np.bool_]:
        """Which of the stored columns: (stored,)."""
        return np.arange(self.stored) % (self.width + self.sentinels) >= self.width

    @property
    def reaches_each_block(self) -> bool:
        """Whether each block has a sentinel."""
        return bool(self.is_sentinel.reshape(-1, BLOCK).any(1).all())

    def spread(self, rows: Codes) -> tuple[Codes, Codes]:
        """(..., columns) -> the blocks (..., stored), 0 at the sentinels, and the (..., rest)."""
        *leading, columns = rows.shape
        whole = np.zeros((*leading, self.stored), rows.dtype)
        if self.replace:
            whole[..., ~self.is_sentinel] = rows[..., ~self.is_sentinel]
            return whole, rows[..., self.is_sentinel]
        at = np.flatnonzero(~self.is_sentinel)[:columns]
        whole[..., at] = rows
        return whole, rows[..., :0]

    def join(self, whole: Codes, rest: Codes) -> Codes:
        """The inverse of `spread`."""
        if not self.replace:
            return whole[..., np.flatnonzero(~self.is_sentinel)[: self.columns]]
        rows = whole.copy()
        rows[..., self.is_sentinel] = rest
        return rows


def padded_rows(rows: int) -> int:
    """The rows of a packed weight; those after the last have zeros."""
    return -(-rows // ROW_MULTIPLE) * ROW_MULTIPLE


@dataclass(frozen=True)
class BlockLayout:
    """Four codes in a byte, the first in the lowest bits, of rows that are spread and padded.

    `fields` are the two bits of codes -1, 0 and 1. `by_columns`: what stands in column k of all
    rows comes before column k + 1, (blocks * BLOCK, padded_rows); otherwise row comes after row.
    """

    name: str
    fields: tuple[int, int, int]
    by_columns: bool

    def pack(self, codes: Codes) -> Bytes:
        """Codes (N, K) int8 in {-1, 0, 1} -> uint8 (bytes,): the blocks, then the rest.

        Raises InputError on another dtype, another rank or another code.
        """
        check_codes(codes)
        spacing, rows = Spacing.of(codes.shape[1]), padded_rows(len(codes))
        wide, apart = spacing.spread(codes)
        digits = digits_of(wide, np.empty((rows, wide.shape[1]), np.uint8))
        found = np.array(self.fields, np.uint8)[digits.T if self.by_columns else digits]
        packed: Bytes = np.bitwise_or.reduce(found.reshape(-1, 4) << _SHIFTS, axis=1)
        rest = np.zeros((spacing.rest, rows), np.int8)
        rest[:, : len(codes)] = apart.T
        return np.concatenate([packed, rest.reshape(-1).view(np.uint8)])

    def parts(self, packed: Bytes, shape: tuple[int, int]) -> tuple[Bytes, NDArray[np.int8]]:
        """The bytes of the blocks, and the rest: (rest, padded_rows) codes."""
        rows, spacing = padded_rows(shape[0]), Spacing.of(shape[1])
        size = rows * spacing.stored // 4
        return packed[:size], packed[size:].view(np.int8).reshape(spacing.rest, rows)

    def unpack(self, packed: Bytes, shape: tuple[int, int]) -> Codes:
        """The inverse of `pack`: codes (N, K) int8 from bytes of any shape.

        Raises ArtifactError if the size differs or a byte is one that `pack` never writes.
        """
        rows, spacing = shape[0], Spacing.of(shape[1])
        stored = padded_rows(rows), spacing.stored
        size = stored[0] * (stored[1] // 4 + spacing.rest)
        check_size(self.name, shape, packed.nbytes, size)
        flat, rest = self.parts(np.ascontiguousarray(packed).view(np.uint8).reshape(-1), shape)
        found = flat.reshape(-1, 1) >> _SHIFTS & np.uint8(3)
        fields = found.reshape(stored[::-1]).T if self.by_columns else found.reshape(stored)
        meanings = np.full(4, _DAMAGED, np.int8)
        meanings[list(self.fields)] = (-1, 0, 1)
        codes = spacing.join(meanings[fields[:rows]], rest.T[:rows])
        if ((codes < -1) | (codes > 1)).any():
            raise damaged(self.name, shape, "holds codes that are not ternary")
        return codes


INT2_COLUMNS = BlockLayout("int2_columns", (3, 0, 1), by_columns=True)  # two's complement
NBITS_ROWS = BlockLayout("nbits_rows", (1, 2, 3), by_columns=False)  # 2 is MatMulNBits' zero
