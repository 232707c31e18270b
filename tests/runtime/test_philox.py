"""Philox4x32-10 gives the numbers of its authors."""

from __future__ import annotations

import pytest

from mmfree_compiler.runtime.philox import Words, philox, random_bits

ONES = 0xFFFFFFFF


@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((ONES,) * 4, (ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_known_answers(counter: Words, key: tuple[int, int], expected: Words) -> None:
    """kat_vectors of Random123: zeros, ones, the digits of pi."""
    assert philox(counter, key) == expected


def test_low_words_come_first() -> None:
    seed, position = 0x1122334455667788, 0x99AABBCCDDEEFF00
    words = philox((0xDDEEFF00, 0x99AABBCC, 0, 0), (0x55667788, 0x11223344))
    assert random_bits(seed, position) == words[1] << 32 | words[0]


def test_every_bit_of_seed_and_position_counts() -> None:
    changed = {random_bits(1 << bit, 0) for bit in range(64)}
    changed |= {random_bits(0, 1 << bit) for bit in range(64)}
    assert len(changed | {random_bits(0, 0)}) == 129
