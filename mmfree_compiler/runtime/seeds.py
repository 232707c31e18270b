"""The seeds of generations: 64 bits each, one per prompt of a batch."""

from __future__ import annotations

import secrets
from collections.abc import Sequence, Sized
from numbers import Integral

import numpy as np

from mmfree_compiler.errors import InputError
from mmfree_compiler.wording import counted

_BITS = 64
_HINT = "Leave it out for a random seed"
_BATCH_HINT = "Pass one seed, or one per prompt"


def checked_seed(seed: int | None) -> int:
    """`seed`, or a random one for None. Raises InputError unless it is an integer of 64 bits."""
    if seed is None:
        return secrets.randbits(_BITS)
    if not isinstance(seed, Integral):
        raise InputError("seed", f"{seed!r} is not an integer", _HINT)
    if seed < 0:
        raise InputError("seed", "is negative", _HINT)
    return _of_64_bits("seed", int(seed))


def seeds(seed: int | Sequence[int] | None, count: int) -> Sequence[int | None]:
    """The seeds of `count` prompts: `seed`, `seed + 1` and so on, or those listed."""
    if seed is None:
        return [None] * count
    if isinstance(seed, int | np.integer):
        last = _of_64_bits("seed of the last prompt", int(seed) + count - 1)
        return range(int(seed), last + 1)
    if not isinstance(seed, Sized):
        raise InputError("seed", f"{seed!r} is not an integer", _BATCH_HINT)
    if len(seed) != count:
        cause = f"{counted(len(seed), 'seed')} for {counted(count, 'prompt')}"
        raise InputError("seed", cause, _BATCH_HINT)
    return seed


def _of_64_bits(thing: str, seed: int) -> int:
    if seed >> _BITS > 0:
        cause = f"has {seed.bit_length()} bits, more than {_BITS}"
        raise InputError(thing, cause, f"Choose at most 2^{_BITS} - 1")
    return seed
