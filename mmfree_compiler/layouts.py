"""Layouts of packed ternary weights: pack and unpack side by side. NumPy only.

A layout cuts a weight (N, K) into tiles of `rows` rows and a tile into blocks of `block` columns; a
block is 64 bytes, one cache line, and a tile's blocks follow each other. Rows and columns that fill
the last tile and block hold the code 0.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.errors import ArtifactError, InputError

Codes = NDArray[np.int8]
Bytes = NDArray[np.uint8]

BLOCK_BYTES = 64
CHUNK_BYTES = 1 << 19  # of codes worked on at once: they and the temporaries stay in a core's L2


@dataclass(frozen=True)
class Layout:
    """How `rows` x `block` ternary codes become 64 bytes.

    `encode` takes digits, code + 1, as uint8 (tiles * rows, blocks * block) and fills uint8
    (tiles, blocks, 64); `decode` is its inverse. Decoded digits above 2 mean a byte that no
    `encode` writes.
    """

    name: str
    rows: int
    block: int
    encode: Callable[[Bytes, Bytes], None] = field(repr=False)
    decode: Callable[[Bytes, Bytes], None] = field(repr=False)

    @property
    def bits(self) -> float:
        """Bits a weight."""
        return 8 * BLOCK_BYTES / (self.rows * self.block)

    def padded(self, shape: tuple[int, int]) -> tuple[int, int]:
        """(N, K) with both filled up to whole tiles and blocks."""
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
        if codes.dtype != np.int8 or codes.ndim != 2:
            raise InputError(
                f"ternary codes {codes.dtype} {codes.shape}",
                "not an int8 matrix",
                "Pass (N, K) int8",
            )
        shape = codes.shape[0], codes.shape[1]
        packed = np.empty(self.packed_shape(shape), np.uint8)
        step = self._tiles_at_once(shape)
        digits = np.empty((step * self.rows, self.padded(shape)[1]), np.uint8)
        for tile in range(0, len(packed), step):
            part = packed[tile : tile + step]
            rows = codes[tile * self.rows : (tile + step) * self.rows]
            self.encode(_digits(rows, digits[: len(part) * self.rows]), part)
        return packed

    def unpack(self, packed: Bytes, shape: tuple[int, int]) -> Codes:
        """The inverse of `pack`: codes (N, K) int8 from `nbytes(shape)` bytes of any shape.

        Raises ArtifactError when the size differs or a byte holds what no packer writes.
        """
        if packed.nbytes != self.nbytes(shape):
            raise ArtifactError(
                f"{self.name} weight of shape {shape}",
                f"{packed.nbytes} bytes instead of {self.nbytes(shape)}",
                "Compile the model again",
            )
        tiles = np.ascontiguousarray(packed).view(np.uint8).reshape(self.packed_shape(shape))
        codes = np.empty(shape, np.int8)
        step = self._tiles_at_once(shape)
        digits = np.empty((step * self.rows, self.padded(shape)[1]), np.uint8)
        for tile in range(0, len(tiles), step):
            part = tiles[tile : tile + step]
            self.decode(part, digits[: len(part) * self.rows])
            if digits[: len(part) * self.rows].max(initial=0) > 2:
                raise ArtifactError(
                    f"{self.name} weight of shape {shape}",
                    f"tiles {tile} to {tile + len(part) - 1} hold codes that are not ternary",
                    "Compile the model again",
                )
            rows = codes[tile * self.rows : (tile + step) * self.rows]
            np.subtract(digits[: len(rows), : shape[1]].view(np.int8), 1, out=rows)
        return codes

    def _tiles_at_once(self, shape: tuple[int, int]) -> int:
        return max(1, CHUNK_BYTES // (self.rows * max(1, self.padded(shape)[1])))


def _digits(codes: Codes, out: Bytes) -> Bytes:
    """Write code + 1 into `out`, fill with code 0; InputError on another code."""
    rows, columns = codes.shape
    np.add(codes.view(np.uint8), 1, out=out[:rows, :columns])  # uint8 wraps: -1 is 255
    out[rows:] = 1
    out[:, columns:] = 1
    if out.max(initial=0) > 2:
        wrong = np.unique(codes[(codes < -1) | (codes > 1)])[:4].tolist()
        raise InputError("ternary codes", f"values {wrong}", "Codes are -1, 0 and 1")
    return out


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
    """What a byte of tile16_trits means.

    Five digits d0..d4 share a byte v. With r = d0 + 3 d1 + 9 d2 + 27 d3 below 64, v = 64 d4 + r;
    the other 51 combinations, c = 17 d4 + r - 64, lie above: v = 192 + c. Kernels so find four
    digits as 2-bit fields in tables of 64 bytes, by the low six bits of v.

    Returns the five digits by byte (256, 5), 3 where no byte is.
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
    # Four bytes at once, none of which leaves its range: ten times as fast as a table.
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
