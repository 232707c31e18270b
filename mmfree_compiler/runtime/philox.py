"""Philox4x32-10: random words from a counter and a key, by integer products.

Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3", whose code is Random123.
"""

from __future__ import annotations

Words = tuple[int, int, int, int]

_ROUNDS = 10
_MULTIPLIER_0, _MULTIPLIER_1 = 0xD2511F53, 0xCD9E8D57
_KEY_STEP_0, _KEY_STEP_1 = 0x9E3779B9, 0xBB67AE85
_WORD = 0xFFFFFFFF


def random_bits(seed: int, position: int) -> int:
    """The 64 random bits of a position: words 0 and 1 (high) of its block.

    `seed`, the key, and `position`, the counter, have up to 64 bits; their low words come first.
    """
    counter = (position & _WORD, position >> 32, 0, 0)
    low, high, *_ = philox(counter, (seed & _WORD, seed >> 32))
    return high << 32 | low


def philox(counter: Words, key: tuple[int, int]) -> Words:
    """The four random words of a counter; all words have 32 bits."""
    a, b, c, d = counter
    key_0, key_1 = key
    for _ in range(_ROUNDS):
        first, second = a * _MULTIPLIER_0, c * _MULTIPLIER_1
        a, b = second >> 32 ^ b ^ key_0, second & _WORD
        c, d = first >> 32 ^ d ^ key_1, first & _WORD
        key_0, key_1 = key_0 + _KEY_STEP_0 & _WORD, key_1 + _KEY_STEP_1 & _WORD
    return a, b, c, d
