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
    blocks,
    gather,
    padded_rows,
    sentinels,
    spread,
)
from mmfree_compiler.backends.ternary import Codes
from mmfree_compiler.errors import ArtifactError, InputError

SHAPES = st.tuples(st.integers(1, 9), st.integers(1, 400))
CODES = SHAPES.flatmap(lambda shape: hnp.arrays(np.int8, shape, elements=st.integers(-1, 1)))
every_layout = pytest.mark.parametrize(
    "layout", [INT2_COLUMNS, NBITS_ROWS], ids=lambda layout: layout.name
)


@every_layout
@given(codes=CODES)
def test_round_trip(layout: BlockLayout, codes: Codes) -> None:
    packed = layout.pack(codes)
    rows, columns = codes.shape
    assert packed.nbytes == padded_rows(rows) * blocks(columns) * BLOCK // 4
    np.testing.assert_array_equal(layout.unpack(packed, (rows, columns)), codes)


@given(row=hnp.arrays(np.float32, st.integers(1, 400), elements=st.just(1)))
def test_every_block_ends_in_a_sentinel(row: np.ndarray) -> None:
    wide, marks = spread(row).reshape(-1, BLOCK), sentinels(row.size).reshape(-1, BLOCK)
    assert not wide[:, -1].any()
    assert (marks[:, -1] == 127).all()
    assert not marks[:, :-1].any()
    np.testing.assert_array_equal(gather(spread(row), row.size), row)


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
