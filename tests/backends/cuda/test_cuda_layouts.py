"""Packed weights for GPUs: exact round trips, documented bytes, refusal of what is not ternary."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfree_compiler.backends.cuda.layouts import BLOCK, QUARTERS, ROWS
from mmfree_compiler.backends.cuda.strides import codes_stride
from mmfree_compiler.backends.ternary import Codes
from mmfree_compiler.errors import ArtifactError, InputError

SHAPES = st.tuples(st.integers(0, ROWS + 2), st.integers(0, BLOCK + 2))
CODES = st.builds(
    lambda shape, seed: np.random.default_rng(seed).integers(-1, 2, shape, dtype=np.int8),
    SHAPES,
    st.integers(0, 1000),
)


@given(codes=CODES)
def test_round_trip(codes: Codes) -> None:
    packed = QUARTERS.pack(codes)
    assert packed.shape == QUARTERS.packed_shape(codes.shape)
    assert packed.nbytes == QUARTERS.nbytes(codes.shape)
    np.testing.assert_array_equal(QUARTERS.unpack(packed, codes.shape), codes)
    np.testing.assert_array_equal(QUARTERS.unpack(packed.reshape(-1), codes.shape), codes)


@given(codes=CODES)
def test_fill_is_code_zero(codes: Codes) -> None:
    padded = QUARTERS.padded(codes.shape)
    whole = QUARTERS.unpack(QUARTERS.pack(codes), padded)
    expected = np.zeros(padded, np.int8)
    expected[: codes.shape[0], : codes.shape[1]] = codes
    np.testing.assert_array_equal(whole, expected)


@given(codes=CODES)
def test_bytes_are_as_documented(codes: Codes) -> None:
    rows, columns = QUARTERS.padded(codes.shape)
    expected = np.full((rows, columns // 4), 0b01010101, np.uint8)
    for k in range(codes.shape[1]):
        block, (s, j) = k // 256, divmod(k % 256, 64)
        digits = codes[:, k].astype(np.uint8) << (2 * s)  # 01 plus -1, 0 or 1 carries nowhere
        expected[: len(codes), 64 * block + j] += digits
    np.testing.assert_array_equal(QUARTERS.pack(codes), expected)


def test_strided_codes() -> None:
    codes = np.random.default_rng(0).integers(-1, 2, (40, 36), dtype=np.int8)
    np.testing.assert_array_equal(QUARTERS.pack(codes.T), QUARTERS.pack(codes.T.copy()))


def test_sizes() -> None:
    assert QUARTERS.padded((129, 257)) == (256, 512)
    assert QUARTERS.nbytes((1, 1)) == 128 * 64
    assert QUARTERS.nbytes((2048, 5632)) == 2048 * 5632 // 4
    assert [codes_stride(width) for width in (0, 1, 16, 17)] == [0, 16, 16, 32]


@given(codes=CODES.filter(lambda codes: codes.size > 0), data=st.data())
def test_pack_refuses_other_codes(codes: Codes, data: st.DataObject) -> None:
    at = tuple(data.draw(st.integers(0, size - 1)) for size in codes.shape)
    wrong = data.draw(st.integers(-128, -2) | st.integers(2, 127))
    codes[at] = wrong
    with pytest.raises(InputError, match=str(wrong)):
        QUARTERS.pack(codes)


@pytest.mark.parametrize("codes", [np.zeros((4, 4), np.int32), np.zeros(4, np.int8)])
def test_pack_refuses_other_arrays(codes: Codes) -> None:
    with pytest.raises(InputError, match="int8 matrix"):
        QUARTERS.pack(codes)


@given(size=st.integers(0, 20000).filter(lambda size: size != 128 * 64))
def test_unpack_refuses_other_sizes(size: int) -> None:
    with pytest.raises(ArtifactError, match="bytes instead of 8192"):
        QUARTERS.unpack(np.zeros(size, np.uint8), (17, 16))


@given(byte=st.integers(0, 63), field=st.integers(0, 3), row=st.integers(0, 127))
def test_unpack_refuses_the_fourth_digit(byte: int, field: int, row: int) -> None:
    packed = QUARTERS.pack(np.zeros((20, 16), np.int8))
    packed[row, byte] |= np.uint8(3 << (2 * field))
    with pytest.raises(ArtifactError, match="not ternary"):
        QUARTERS.unpack(packed, (20, 16))
