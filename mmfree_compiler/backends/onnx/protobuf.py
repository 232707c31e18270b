"""As much of the protocol buffers' encoding as metadata needs: fields, one after another.

https://protobuf.dev/programming-guides/encoding
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple, Protocol

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5  # wire types
_FIXED = {FIXED64: 8, FIXED32: 4}
_MAX_VARINT = 10  # bytes


class Buffer(Protocol):
    """Bytes, or a view of an array of them."""

    def __len__(self) -> int: ...
    def __getitem__(self, index: int, /) -> int: ...


class Field(NamedTuple):
    """A field: its `number`, where it starts, and where its value is."""

    number: int
    start: int
    value: int
    end: int


def field(number: int, value: bytes) -> bytes:
    """A field of bytes."""
    return _varint(number << 3 | BYTES) + _varint(len(value)) + value


def fields(data: Buffer) -> Iterator[Field]:
    """The fields of a message, whose values are not read. Raises ValueError on other bytes."""
    at, size = 0, len(data)
    while at < size:
        tag, value = _read(data, at)
        end = value
        if tag & 7 == VARINT:
            _, end = _read(data, value)
        elif tag & 7 == BYTES:
            length, value = _read(data, value)
            end = value + length
        elif tag & 7 in _FIXED:
            end = value + _FIXED[tag & 7]
        else:
            raise ValueError(f"unknown wire type {tag & 7} at byte {at}")
        if end > size or not tag >> 3:
            raise ValueError(f"a field at byte {at} is cut off")
        yield Field(tag >> 3, at, value, end)
        at = end


def _varint(number: int) -> bytes:
    groups = [number >> shift & 127 for shift in range(0, max(1, number.bit_length()), 7)]
    return bytes([*(group | 128 for group in groups[:-1]), groups[-1]])


def _read(data: Buffer, at: int) -> tuple[int, int]:
    """The varint at `at`, and what follows it."""
    number = 0
    for index in range(_MAX_VARINT):
        if at + index >= len(data):
            break
        byte = int(data[at + index])
        number |= (byte & 127) << 7 * index
        if byte < 128:
            return number, at + index + 1
    raise ValueError(f"a number at byte {at} is cut off")
