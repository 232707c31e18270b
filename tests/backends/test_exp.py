"""NumPy's exp: the bits of the reference in ops/."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from special_values import SPECIAL, assert_same_bits, bit_patterns

from mmfree_compiler.backends.exp import exp
from mmfree_compiler.ops import OPS

NUMBERS = {
    "special values": SPECIAL,
    "random bits": bit_patterns(1_000_000),
    "a grid down to -104": torch.linspace(-104, 0, 1_000_001),
    "a number": torch.tensor([-1.5]),
    "nothing": torch.empty(0),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", NUMBERS)
def test_the_bits_of_the_reference(name: str) -> None:
    x = NUMBERS[name]
    given = x.numpy().copy()
    expected = OPS["exp"].reference(x)
    assert_same_bits(torch.from_numpy(exp(given)), expected, "exp", x)
    assert np.array_equal(given.view(np.int32), x.numpy().view(np.int32))
