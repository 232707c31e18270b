"""Mutations of bytes."""

from __future__ import annotations

import random
import struct

_NUMBERS = (0, 1, 0xFF, 0x7F, 0x80)


def _flip(rng: random.Random, data: bytearray, at: int) -> None:
    data[at] ^= 1 << rng.randrange(8)


def _set(rng: random.Random, data: bytearray, at: int) -> None:
    data[at] = rng.choice(_NUMBERS)


def _size(rng: random.Random, data: bytearray, at: int) -> None:
    """A number of four or eight bytes."""
    form = rng.choice(("<L", "<Q"))
    value = rng.choice((0, 1, 63, len(data), len(data) * 2, 2**31, 2**32 - 1))
    packed = struct.pack(form, value)
    data[at : at + len(packed)] = packed


def _cut(rng: random.Random, data: bytearray, at: int) -> None:
    del data[at : at + rng.choice((1, 4, 64, 1000, len(data)))]


def _insert(rng: random.Random, data: bytearray, at: int) -> None:
    data[at:at] = rng.randbytes(rng.choice((1, 4, 64, 1000)))


def _copy(rng: random.Random, data: bytearray, at: int) -> None:
    """A piece appears again elsewhere, over or between what was there."""
    piece = data[at : at + rng.choice((4, 30, 46, 64, 500))]
    to = rng.randrange(len(data))
    data[to : to + rng.choice((0, len(piece)))] = piece


_CHANGES = (_flip, _flip, _set, _size, _cut, _insert, _copy)


def mutated(rng: random.Random, data: bytes) -> bytes:
    """`data` after one to three changes; those near its ends, where headers are, are likelier."""
    changed = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 3))):
        if not changed:
            break
        near = min(len(changed), rng.choice((16, 100, 700, len(changed), len(changed))))
        at = rng.randrange(near)
        at = len(changed) - 1 - at if rng.random() < 0.5 else at
        rng.choice(_CHANGES)(rng, changed, at)
    return bytes(changed)
