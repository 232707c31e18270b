"""Packed weight layouts: exact round trips, padding, sizes, and refusal of what is not ternary."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from mmfree_compiler.backends.cpu import layouts
from mmfree_compiler.backends.cpu.layouts import (
    LAYOUTS,
    TILE16_2BIT,
    TILE16_TRITS,
    TRIT_DIGITS,
    Layout,
)
from mmfree_compiler.backends.cpu.strides import CODES_SLACK
from mmfree_compiler.backends.ternary import Codes
from mmfree_compiler.errors import ArtifactError, InputError

SHAPES = st.tuples(st.integers(0, 70), st.integers(0, 70))
CODES = SHAPES.flatmap(lambda shape: hnp.arrays(np.int8, shape, elements=st.integers(-1, 1)))
every_layout = pytest.mark.parametrize("layout", LAYOUTS.values(), ids=str)


@every_layout
@given(codes=CODES)
def test_round_trip(layout: Layout, codes: Codes) -> None:
    packed = layout.pack(codes)
    assert packed.shape == layout.packed_shape(codes.shape)
    assert packed.nbytes == layout.nbytes(codes.shape)
    np.testing.assert_array_equal(layout.unpack(packed, codes.shape), codes)
    np.testing.assert_array_equal(layout.unpack(packed.reshape(-1), codes.shape), codes)


@every_layout
@given(codes=CODES)
def test_fill_is_code_zero(layout: Layout, codes: Codes) -> None:
    padded = layout.padded(codes.shape)
    whole = layout.unpack(layout.pack(codes), padded)
    expected = np.zeros(padded, np.int8)
    expected[: codes.shape[0], : codes.shape[1]] = codes
    np.testing.assert_array_equal(whole, expected)


@every_layout
def test_chunks_do_not_show(layout: Layout, monkeypatch: pytest.MonkeyPatch) -> None:
    codes = np.random.default_rng(0).integers(-1, 2, (100, 40), dtype=np.int8)
    whole = layout.pack(codes)
    monkeypatch.setattr(layouts, "CHUNK_BYTES", 1)
    np.testing.assert_array_equal(layout.pack(codes), whole)
    np.testing.assert_array_equal(layout.unpack(whole, codes.shape), codes)


@every_layout
def test_strided_codes(layout: Layout) -> None:
    codes = np.random.default_rng(0).integers(-1, 2, (40, 36), dtype=np.int8)
    np.testing.assert_array_equal(layout.pack(codes.T), layout.pack(codes.T.copy()))


@given(codes=hnp.arrays(np.int8, (16, 32), elements=st.integers(-1, 1)))
def test_tile16_2bit_is_as_documented(codes: Codes) -> None:
    packed = TILE16_2BIT.pack(codes)
    expected = np.zeros((1, 2, 64), np.uint8)
    for i, k in np.ndindex(codes.shape):
        block, (s, j) = k // 16, divmod(k % 16, 4)
        expected[0, block, 4 * i + j] |= np.uint8((int(codes[i, k]) + 1) << (2 * s))
    np.testing.assert_array_equal(packed, expected)


@given(codes=hnp.arrays(np.int8, (16, 40), elements=st.integers(-1, 1)))
def test_tile16_trits_is_as_documented(codes: Codes) -> None:
    packed = TILE16_TRITS.pack(codes)
    assert packed.shape == (1, 2, 64)
    for i, k in np.ndindex(codes.shape):
        block, (s, j) = k // 20, divmod(k % 20, 4)
        assert TRIT_DIGITS[packed[0, block, 4 * i + j], s] == codes[i, k] + 1


def test_every_byte_below_192_names_its_fifth_digit() -> None:
    np.testing.assert_array_equal(TRIT_DIGITS[:192, 4], np.arange(192) // 64)
    assert (TRIT_DIGITS[:243] < 3).all()
    assert (TRIT_DIGITS[243:] == 3).all()


@every_layout
def test_rows_of_codes_hold_the_last_block(layout: Layout) -> None:
    assert layout.block <= CODES_SLACK + 1


def test_sizes() -> None:
    assert TILE16_TRITS.bits == 1.6
    assert TILE16_TRITS.padded((17, 21)) == (32, 40)
    assert TILE16_2BIT.bits == 2
    assert TILE16_2BIT.padded((17, 1)) == (32, 16)
    assert TILE16_2BIT.nbytes((17, 1)) == 128
    assert TILE16_2BIT.nbytes((2048, 2048)) == 2048 * 2048 // 4


@every_layout
@given(codes=CODES.filter(lambda codes: codes.size > 0), data=st.data())
def test_pack_refuses_other_codes(layout: Layout, codes: Codes, data: st.DataObject) -> None:
    at = tuple(data.draw(st.integers(0, size - 1)) for size in codes.shape)
    wrong = data.draw(st.integers(-128, -2) | st.integers(2, 127))
    codes[at] = wrong
    with pytest.raises(InputError, match=str(wrong)):
        layout.pack(codes)


@every_layout
@pytest.mark.parametrize("codes", [np.zeros((4, 4), np.int32), np.zeros(4, np.int8)])
def test_pack_refuses_other_arrays(layout: Layout, codes: Codes) -> None:
    with pytest.raises(InputError, match="int8 matrix"):
        layout.pack(codes)


@given(byte=st.integers(0, 63), value=st.integers(243, 255))
def test_unpack_refuses_bytes_that_no_five_trits_make(byte: int, value: int) -> None:
    packed = TILE16_TRITS.pack(np.zeros((20, 16), np.int8))
    packed[1, 0, byte] = value
    with pytest.raises(ArtifactError, match="not ternary"):
        TILE16_TRITS.unpack(packed, (20, 16))


@every_layout
@given(size=st.integers(0, 300).filter(lambda size: size != 128))
def test_unpack_refuses_other_sizes(layout: Layout, size: int) -> None:
    with pytest.raises(ArtifactError, match="bytes instead of 128"):
        layout.unpack(np.zeros(size, np.uint8), (17, 16))


@given(byte=st.integers(0, 63), field=st.integers(0, 3))
def test_unpack_refuses_the_fourth_code_of_two_bits(byte: int, field: int) -> None:
    packed = TILE16_2BIT.pack(np.zeros((20, 16), np.int8))
    packed[1, 0, byte] |= np.uint8(3 << (2 * field))
    with pytest.raises(ArtifactError, match="not ternary"):
        TILE16_2BIT.unpack(packed, (20, 16))
