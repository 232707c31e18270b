"""Blocks with sentinels: exact round trips, sizes, and refusal of what is not ternary."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmfree_compiler.backends.onnx.layouts import (
    BLOCK,
    INT2_COLUMNS,
    NBITS_ROWS,
    BlockLayout,
    Spacing,
    padded_rows,
)
from mmfree_compiler.backends.ternary import Codes
from mmfree_compiler.errors import ArtifactError, InputError

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 400))
CODES = SHAPES.flatmap(lambda shape: hnp.arrays(np.int8, shape, elements=st.integers(-1, 1)))
every_layout = pytest.mark.parametrize(
    "layout", [INT2_COLUMNS, NBITS_ROWS], ids=lambda layout: layout.name
)


# Pads in segments, pads in whole groups, in each block, and columns that are in no block.
WIDTHS = (1, 37, 127, 128, 254, 1024, 2047, 2048, 2816, 5632)


@every_layout
@given(codes=CODES)
def test_round_trip(layout: BlockLayout, codes: Codes) -> None:
    packed = layout.pack(codes)
    rows, columns = codes.shape
    spacing = Spacing.of(columns)
    size = padded_rows(rows) * (spacing.stored // 4 + spacing.rest)
    assert packed.nbytes == size
    np.testing.assert_array_equal(layout.unpack(packed, (rows, columns)), codes)


@every_layout
@pytest.mark.parametrize("columns", WIDTHS)
def test_round_trip_of_wide_rows(layout: BlockLayout, columns: int) -> None:
    codes = np.random.default_rng(0).integers(-1, 2, (5, columns), dtype=np.int8)
    np.testing.assert_array_equal(layout.unpack(layout.pack(codes), codes.shape), codes)


@pytest.mark.parametrize("columns", [*range(1, 600), *WIDTHS, 43_944])
def test_every_block_has_a_sentinel(columns: int) -> None:
    spacing, ones = Spacing.of(columns), np.ones(columns, np.int8)
    whole, rest = spacing.spread(ones)
    assert whole.size == spacing.stored == spacing.blocks * BLOCK
    assert not whole[spacing.is_sentinel].any()
    assert spacing.is_sentinel.reshape(-1, BLOCK).any(1).all()
    assert whole.sum() + rest.sum() == columns


def test_blocks_are_in_groups_of_four_where_that_costs_little() -> None:
    """ONNX Runtime multiplies four blocks at once."""
    assert Spacing.of(1024).blocks == 8
    assert Spacing.of(2816).blocks == 24
    assert Spacing.of(640).blocks == 6


@every_layout
def test_strided_codes(layout: BlockLayout) -> None:
    codes = np.random.default_rng(0).integers(-1, 2, (40, 36), dtype=np.int8)
    np.testing.assert_array_equal(layout.pack(codes.T), layout.pack(codes.T.copy()))


@every_layout
def test_only_ternary_codes_are_packed(layout: BlockLayout) -> None:
    with pytest.raises(InputError, match="values"):
        layout.pack(np.array([[0, 2]], np.int8))
    with pytest.raises(InputError, match="int8 matrix"):
        layout.pack(np.zeros(3, np.int8))


@every_layout
def test_damaged_weights_are_refused(layout: BlockLayout) -> None:
    packed = layout.pack(np.zeros((4, 127), np.int8))
    (unused,) = {0, 1, 2, 3} - set(layout.fields)
    packed[0] = unused
    with pytest.raises(ArtifactError, match="not ternary"):
        layout.unpack(packed, (4, 127))
    with pytest.raises(ArtifactError, match="bytes instead of"):
        layout.unpack(packed[1:], (4, 127))


@every_layout
def test_a_damaged_rest_is_refused(layout: BlockLayout) -> None:
    packed = layout.pack(np.zeros((4, 512), np.int8))
    for wrong in (2, 0x80):
        packed[-1] = wrong
        with pytest.raises(ArtifactError, match="not ternary"):
            layout.unpack(packed, (4, 512))
