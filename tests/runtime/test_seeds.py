"""Seeds: integers of 64 bits, one per prompt."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fake_launcher import lm_session

from mmfree_compiler.errors import InputError

BAD_SEEDS: dict[str, tuple[Any, str]] = {
    "a fraction": (1.5, "seed: 1.5 is not an integer"),
    "text": ("x", "seed: 'x' is not an integer"),
    "negative": (-1, "seed: is negative"),
    "negative, of 17,000 bits": (-(10**5000), "seed: is negative"),
    "of 65 bits": (2**64, r"seed: has 65 bits, more than 64. Choose at most 2\^64 - 1"),
    "of 17,000 bits": (10**5000, "seed: has 16610 bits"),
}


@pytest.mark.parametrize("name", BAD_SEEDS)
def test_bad_seeds(name: str) -> None:
    seed, message = BAD_SEEDS[name]
    with pytest.raises(InputError, match=message):
        lm_session().generate([1], seed=seed)
    with pytest.raises(InputError, match=message):
        lm_session().generate_batch([[1], [1]], seed=[0, seed])
    with pytest.raises(InputError, match="seed"):
        lm_session().generate_batch([[1]], seed=seed)


def test_bad_seeds_of_a_batch() -> None:
    with pytest.raises(InputError, match="2 seeds for 1 prompt"):
        lm_session().generate_batch([[1]], seed=[1, 2])
    last = 2**64 - 1
    assert len(lm_session().generate_batch([[1], [1]], seed=last - 1)) == 2
    with pytest.raises(InputError, match="seed of the last prompt: has 65 bits"):
        lm_session().generate_batch([[1], [1]], seed=last)


def test_a_seed_as_numpy_counts_it() -> None:
    seed: Any = np.uint8(255)
    found = lm_session().generate_batch([[1], [1]], seed=seed, max_new_tokens=8, stop_tokens=())
    expected = lm_session().generate([1], seed=256, max_new_tokens=8, stop_tokens=())
    assert found[1].ids == [token.id for token in expected]
