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
from mmfree_compiler.elementary import CODE_MAX

BLOCK = 128
COLUMNS = BLOCK - 1  # of a block; the last place has the sentinel
# Columns from which on a sum below 2^24 may be wrong in ONNX Runtime's fast kernels.
MAX_COLUMNS = 43_944
# ONNX Runtime 1.32 returns garbage for 2-bit weights with another number of rows.
ROW_MULTIPLE = 4
_SHIFTS = np.array([0, 2, 4, 6], np.uint8)  # of the fields of a byte


def blocks(columns: int) -> int:
    """The number of blocks of a row of `columns`."""
    return -(-columns // COLUMNS)


def spread(rows: NDArray[np.generic]) -> NDArray[np.generic]:
    """(..., K) -> (..., blocks * BLOCK): zeros at the sentinels and after the last column."""
    *leading, columns = rows.shape
    count = blocks(columns)
    padded = np.zeros((*leading, count * COLUMNS), rows.dtype)
    padded[..., :columns] = rows
    whole = np.zeros((*leading, count, BLOCK), rows.dtype)
    whole[..., :COLUMNS] = padded.reshape(*leading, count, COLUMNS)
    return whole.reshape(*leading, count * BLOCK)


def gather(rows: NDArray[np.generic], columns: int) -> NDArray[np.generic]:
    """The inverse of `spread`."""
    leading = rows.shape[:-1]
    real = rows.reshape(*leading, -1, BLOCK)[..., :COLUMNS]
    return real.reshape(*leading, -1)[..., :columns]


def sentinels(columns: int) -> NDArray[np.float32]:
    """What is added to a row of spread codes: CODE_MAX at each sentinel, else 0."""
    row = np.zeros((blocks(columns), BLOCK), np.float32)
    row[:, -1] = CODE_MAX
    return row.reshape(-1)


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
        """Codes (N, K) int8 in {-1, 0, 1} -> uint8 (bytes,).

        Raises InputError on another dtype, another rank or another code.
        """
        check_codes(codes)
        wide = np.ascontiguousarray(spread(codes), np.int8)
        digits = digits_of(wide, np.empty((padded_rows(len(codes)), wide.shape[1]), np.uint8))
        found = np.array(self.fields, np.uint8)[digits.T if self.by_columns else digits]
        four = found.reshape(-1, 4)
        packed: Bytes = np.bitwise_or.reduce(four << _SHIFTS, axis=1)
        return packed

    def unpack(self, packed: Bytes, shape: tuple[int, int]) -> Codes:
        """The inverse of `pack`: codes (N, K) int8 from bytes of any shape.

        Raises ArtifactError if the size differs or a byte is one that `pack` never writes.
        """
        rows, columns = shape
        stored = padded_rows(rows), blocks(columns) * BLOCK
        check_size(self.name, shape, packed.nbytes, stored[0] * stored[1] // 4)
        flat = np.ascontiguousarray(packed).view(np.uint8).reshape(-1, 1)
        found = flat >> _SHIFTS & np.uint8(3)
        fields = found.reshape(stored[::-1]).T if self.by_columns else found.reshape(stored)
        real = gather(fields[:rows], columns)
        if not np.isin(real, self.fields).all():
            raise damaged(self.name, shape, "holds codes that are not ternary")
        meanings = np.zeros(4, np.int8)
        meanings[list(self.fields)] = (-1, 0, 1)
        codes: Codes = meanings[real]
        return codes


INT2_COLUMNS = BlockLayout("int2_columns", (3, 0, 1), by_columns=True)  # two's complement
NBITS_ROWS = BlockLayout("nbits_rows", (1, 2, 3), by_columns=False)  # 2 is MatMulNBits' zero
