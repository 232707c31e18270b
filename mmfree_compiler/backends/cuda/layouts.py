"""The layout of ternary weights: pack and unpack side by side. NumPy only.

A row of a weight (N, K) is cut into blocks of 256 columns, 64 bytes each. Byte j of a block holds
the digits, code + 1, of its columns j, 64 + j, 128 + j and 192 + j, two bits each, the lowest
first. So every 32-bit word has four fields of four weights, and the codes that go with field s of
the words are the bytes [64 s, 64 s + 64) of the block's activation codes, in order. That serves

- a matrix-vector product by dp4a: 16 bytes of weights meet 16 adjacent bytes of codes four times;
- a matrix product on tensor cores: a field of 64 bytes meets 64 adjacent codes, which asynchronous
  copies bring to shared memory as they are.

Words of 16 consecutive columns would leave tensor cores codes that are 4 bytes in every 16, and
quarters of a whole row would make the order depend on K.

Rows and columns that fill the last tile and block hold the code 0, digit 1: what is packed is
itself a ternary weight, of the padded shape.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from mmfree_compiler.backends.cuda.strides import round_up
from mmfree_compiler.backends.ternary import (
    Bytes,
    Codes,
    check_codes,
    check_size,
    damaged,
    digits_of,
)

BLOCK = 256  # columns of a block
BLOCK_BYTES = 64
FIELDS = 4  # weights in a byte
ROWS = 128  # rows are filled up to a multiple of this: the tallest tile that a kernel reads


@dataclass(frozen=True)
class Quarters:
    """Two bits per weight, quarters of 256 columns side by side, as this module's docstring says.

    `unpack` makes it a program.Layout.
    """

    name: str = "quarters_2bit"

    def padded(self, shape: tuple[int, int]) -> tuple[int, int]:
        """(N, K), both rounded up to what is packed."""
        return round_up(shape[0], ROWS), round_up(shape[1], BLOCK)

    def packed_shape(self, shape: tuple[int, int]) -> tuple[int, int]:
        """(rows, bytes per row): the shape of a packed weight (N, K)."""
        rows, columns = self.padded(shape)
        return rows, columns // FIELDS

    def nbytes(self, shape: tuple[int, int]) -> int:
        """Bytes of a packed weight (N, K)."""
        rows, size = self.packed_shape(shape)
        return rows * size

    def pack(self, codes: Codes) -> Bytes:
        """Codes (N, K) int8 in {-1, 0, 1} -> uint8 (rows, bytes per row).

        Raises InputError on another dtype, another rank or another code.
        """
        check_codes(codes)
        shape = codes.shape[0], codes.shape[1]
        digits = digits_of(codes, np.empty(self.padded(shape), np.uint8))
        fields = digits.reshape(digits.size // BLOCK, FIELDS, BLOCK_BYTES)
        packed = fields[:, 0].copy()
        for s in range(1, FIELDS):
            packed |= fields[:, s] << (2 * s)
        return packed.reshape(self.packed_shape(shape))

    def unpack(self, packed: Bytes, shape: tuple[int, int]) -> Codes:
        """The inverse of `pack`: codes (N, K) int8 from `nbytes(shape)` bytes of any shape.

        Raises ArtifactError if the size differs or a byte is one that `pack` never writes.
        """
        check_size(self.name, shape, packed.nbytes, self.nbytes(shape))
        blocks = np.ascontiguousarray(packed).view(np.uint8)
        blocks = blocks.reshape(packed.nbytes // BLOCK_BYTES, BLOCK_BYTES)
        if (blocks & (blocks >> 1) & 0x55).any():  # both bits of a field: digit 3
            raise damaged(self.name, shape, "holds codes that are not ternary")
        fields = np.stack([blocks >> (2 * s) & 3 for s in range(FIELDS)], axis=1)
        digits = fields.view(np.int8).reshape(self.padded(shape))
        codes: Codes = digits[: shape[0], : shape[1]] - np.int8(1)
        return codes


QUARTERS = Quarters()
