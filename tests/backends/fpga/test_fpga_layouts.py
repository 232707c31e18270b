"""The layout of weights in the stream: exact round trips, sizes, refusal of what is not ternary."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmfree_compiler.backends.fpga.layouts import DENSITIES, Trits
from mmfree_compiler.backends.ternary import Codes
from mmfree_compiler.errors import ArtifactError, InputError

SHAPES = st.tuples(st.integers(1, 70), st.integers(1, 140))
CODES = SHAPES.flatmap(lambda shape: hnp.arrays(np.int8, shape, elements=st.integers(-1, 1)))
every_density = pytest.mark.parametrize("density", DENSITIES)


@every_density
@given(codes=CODES, group=st.integers(1, 9))
def test_round_trip(density: str, codes: Codes, group: int) -> None:
    layout = Trits(density, group)
    shape = codes.shape[0], codes.shape[1]
    packed = layout.pack(codes)
    assert packed.shape == (layout.lines(shape), 64)
    np.testing.assert_array_equal(layout.unpack(packed, shape), codes)


@every_density
@pytest.mark.parametrize("group", [1, 3, 4])
def test_the_order_of_lines(density: str, group: int) -> None:
    """As the docstring of layouts.py says it, line by line and byte by byte."""
    layout, codes = Trits(density, group), np.random.default_rng(0).integers(-1, 2, (39, 200))
    packing, packed = layout.packing, layout.pack(codes.astype(np.int8))
    tiles = -(-39 // packing.rows)
    whole = np.zeros((tiles * packing.rows, 256), np.int64)
    whole[:39, :200] = codes
    expected = []
    for first in range(0, tiles, group):
        for block in range(4):
            for tile in range(first, min(first + group, tiles)):
                digits = whole[tile * packing.rows :][: packing.rows, 64 * block :][:, :64] + 1
                expected.append((digits.T * packing.base ** np.arange(packing.rows)).sum(1))
    np.testing.assert_array_equal(packed, expected)


@every_density
def test_bytes_that_pack_never_writes(density: str) -> None:
    layout = Trits(density, 2)
    packed = layout.pack(np.zeros((20, 64), np.int8))
    for byte in (255, 243 if density == "1.6" else 3):
        packed[1, 7] = byte
        with pytest.raises(ArtifactError, match="holds codes that are not ternary"):
            layout.unpack(packed, (20, 64))


@every_density
def test_sizes_and_codes_are_checked(density: str) -> None:
    layout = Trits(density, 2)
    with pytest.raises(ArtifactError, match="has 64 bytes instead of"):
        layout.unpack(np.zeros((1, 64), np.uint8), (20, 128))
    with pytest.raises(InputError, match=r"have values \[2\]"):
        layout.pack(np.full((3, 3), 2, np.int8))


def test_bits_per_weight() -> None:
    for density, packing in DENSITIES.items():
        assert packing.rows * packing.bits <= 8
        assert Trits(density, 4).lines((2560, 1024)) * 512 == pytest.approx(
            2560 * 1024 * packing.bits
        )
