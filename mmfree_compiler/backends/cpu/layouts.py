"""Layouts of constants: pack and unpack side by side. NumPy only.

A layout of ternary weights cuts a weight (N, K) into tiles of `rows` rows and a tile into blocks
of `block` columns; a block is 64 bytes, one cache line, and a tile's blocks follow each other. Rows
and columns that fill the last tile and block hold the code 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from mmfree_compiler.backends.cpu.strides import float_stride
from mmfree_compiler.backends.ternary import (
    Bytes,
    Codes,
    check_codes,
    check_size,
    damaged,
    digits_of,
)
from mmfree_compiler.program import Array

BLOCK_BYTES = 64
CHUNK_BYTES = 1 << 19  # of codes packed at once, so that they and temporaries fit in a core's L2


@dataclass(frozen=True)
class Layout:
    """How `rows` x `block` ternary codes become 64 bytes.

    `encode` takes digits, code + 1, as uint8 (tiles * rows, blocks * block) and fills uint8
    (tiles, blocks, 64); `decode` is its inverse. A decoded digit above 2 marks a byte that `encode`
    never writes.
    """

    name: str
    rows: int
    block: int
    encode: Callable[[Bytes, Bytes], None] = field(repr=False)
    decode: Callable[[Bytes, Bytes], None] = field(repr=False)

    @property
    def bits(self) -> float:
        """Bits per weight."""
        return 8 * BLOCK_BYTES / (self.rows * self.block)

    def padded(self, shape: tuple[int, int]) -> tuple[int, int]:
        """(N, K), both rounded up to whole tiles and blocks."""
        return -(-shape[0] // self.rows) * self.rows, -(-shape[1] // self.block) * self.block

    def packed_shape(self, shape: tuple[int, int]) -> tuple[int, int, int]:
        """(tiles, blocks, 64): the shape of a packed weight (N, K)."""
        rows, columns = self.padded(shape)
        return rows // self.rows, columns // self.block, BLOCK_BYTES

    def nbytes(self, shape: tuple[int, int]) -> int:
        """Bytes of a packed weight (N, K)."""
        tiles, blocks, size = self.packed_shape(shape)
        return tiles * blocks * size

    def pack(self, codes: Codes) -> Bytes:
        """Codes (N, K) int8 in {-1, 0, 1} -> uint8 (tiles, blocks, 64).

        Raises InputError on another dtype, another rank or another code.
        """
        check_codes(codes)
        shape = codes.shape[0], codes.shape[1]
        packed = np.empty(self.packed_shape(shape), np.uint8)
        step = self._tiles_at_once(shape)
        digits = np.empty((step * self.rows, self.padded(shape)[1]), np.uint8)
        for tile in range(0, len(packed), step):
            part = packed[tile : tile + step]
            rows = codes[tile * self.rows : (tile + step) * self.rows]
            self.encode(digits_of(rows, digits[: len(part) * self.rows]), part)
        return packed

    def unpack(self, packed: Bytes, shape: tuple[int, int]) -> Codes:
        """The inverse of `pack`: codes (N, K) int8 from `nbytes(shape)` bytes of any shape.

        Raises ArtifactError if the size differs or a byte is one that `pack` never writes.
        """
        check_size(self.name, shape, packed.nbytes, self.nbytes(shape))
        tiles = np.ascontiguousarray(packed).view(np.uint8).reshape(self.packed_shape(shape))
        codes = np.empty(shape, np.int8)
        step = self._tiles_at_once(shape)
        digits = np.empty((step * self.rows, self.padded(shape)[1]), np.uint8)
        for tile in range(0, len(tiles), step):
            part = tiles[tile : tile + step]
            self.decode(part, digits[: len(part) * self.rows])
            if digits[: len(part) * self.rows].max(initial=0) > 2:
                cause = f"tiles {tile} to {tile + len(part) - 1} hold codes that are not ternary"
                raise damaged(self.name, shape, cause)
            rows = codes[tile * self.rows : (tile + step) * self.rows]
            np.subtract(digits[: len(rows), : shape[1]].view(np.int8), 1, out=rows)
        return codes

    def _tiles_at_once(self, shape: tuple[int, int]) -> int:
        return max(1, CHUNK_BYTES // (self.rows * max(1, self.padded(shape)[1])))


def _encode_tile16_2bit(digits: Bytes, packed: Bytes) -> None:
    """Byte 4i+j of a block holds row i; its field s, bits 2s and 2s+1, is the digit of k = 4s+j."""
    tiles, blocks, _ = packed.shape
    halves = digits.view("<u8").reshape(tiles * 16, blocks, 2)  # s = 0, 1 and s = 2, 3
    folded = halves[:, :, 1] << 4
    folded |= halves[:, :, 0]
    # The low word now holds s = 0, 2 and the high one s = 1, 3; bits 30 and 31 are free.
    words = (folded | (folded >> 30)).astype("<u4")
    packed.view("<u4")[:] = words.reshape(tiles, 16, blocks).transpose(0, 2, 1)


def _decode_tile16_2bit(packed: Bytes, digits: Bytes) -> None:
    tiles, blocks, _ = packed.shape
    words = packed.view("<u4").transpose(0, 2, 1).reshape(tiles * 16, blocks)
    fields = digits.view("<u4").reshape(tiles * 16, blocks, 4)
    for s in range(4):
        np.bitwise_and(words >> (2 * s), 0x03030303, out=fields[:, :, s])


def _trit_codes() -> Bytes:
    """The meaning of each byte of tile16_trits.

    Five digits d0..d4 share a byte v. Let r = d0 + 3 d1 + 9 d2 + 27 d3. If r < 64, v = 64 d4 + r.
    The other 51 combinations, c = 17 d4 + r - 64, are the bytes v = 192 + c. So kernels can look up
    four digits as 2-bit fields in tables of 64 bytes, by the low six bits of v.

    Returns the five digits of each byte (256, 5); a byte that is not used has digits 3.
    """
    decode = np.full((256, 5), 3, np.uint8)
    for value in range(243):
        top, quad = divmod(value, 81)
        byte = 64 * top + quad if quad < 64 else 192 + 17 * top + quad - 64
        decode[byte] = [value // 3**i % 3 for i in range(5)]
    return decode


TRIT_DIGITS = _trit_codes()


def _encode_tile16_trits(digits: Bytes, packed: Bytes) -> None:
    """Byte 4i+j of a block holds row i: the five digits of k = 4s+j, s = 0..4."""
    tiles, blocks, _ = packed.shape
    words = digits.view("<u4").reshape(tiles * 16, blocks, 5)  # a word: j = 0..3 of one s
    # Four bytes at once, none of which overflows: ten times as fast as a table.
    top = np.ascontiguousarray(words[:, :, 4])
    quads = words[:, :, 3] * np.uint32(27)
    for s in range(3):
        quads += words[:, :, s] * np.uint32(3**s)
    above = (quads >> 6 & 0x01010101) * np.uint32(255)  # bytes of ones where quads >= 64
    above &= 0x80808080 - top * np.uint32(47)
    quads += top << 6
    quads += above
    packed.view("<u4")[:] = quads.reshape(tiles, 16, blocks).transpose(0, 2, 1)


def _decode_tile16_trits(packed: Bytes, digits: Bytes) -> None:
    tiles, blocks, _ = packed.shape
    fields = TRIT_DIGITS[packed.reshape(tiles, blocks, 16, 4)]  # tile, block, i, j, s
    digits.reshape(tiles, 16, blocks, 5, 4)[:] = fields.transpose(0, 2, 1, 4, 3)


TILE16_2BIT = Layout("tile16_2bit", 16, 16, _encode_tile16_2bit, _decode_tile16_2bit)
TILE16_TRITS = Layout("tile16_trits", 16, 20, _encode_tile16_trits, _decode_tile16_trits)

LAYOUTS = {layout.name: layout for layout in (TILE16_2BIT, TILE16_TRITS)}


# --- rows of floats ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Padded:
    """Rows of any dtype, filled with zeros to whole vectors."""

    name: str = "padded"

    def pack(self, array: Array) -> Array:
        width = array.shape[-1]
        padding = [(0, 0)] * (array.ndim - 1) + [(0, float_stride(width) - width)]
        return np.pad(array, padding) if padding[-1][1] else np.ascontiguousarray(array)

    def unpack(self, part: Array, shape: tuple[int, ...]) -> Array:
        return part.reshape(*shape[:-1], -1)[..., : shape[-1]]


@dataclass(frozen=True)
class TapsFirst:
    """A convolution's (D, k) as k padded rows of D: a vector holds one tap of 16 channels."""

    name: str = "taps_first"

    def pack(self, array: Array) -> Array:
        return PADDED.pack(array.T)

    def unpack(self, part: Array, shape: tuple[int, ...]) -> Array:
        return PADDED.unpack(part, shape[::-1]).T


PADDED, TAPS_FIRST = Padded(), TapsFirst()
