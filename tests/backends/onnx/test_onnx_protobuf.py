"""Fields of protocol buffers: what the library writes is read, and nothing else crashes."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import ModelProto, StringStringEntryProto

from mmfree_compiler.backends.onnx.protobuf import field, fields


@given(key=st.text(max_size=200), value=st.text(max_size=200))
def test_a_field_is_what_the_library_writes(key: str, value: str) -> None:
    entry = StringStringEntryProto(key=key, value=value)
    ours = field(1, key.encode()) + field(2, value.encode())
    assert StringStringEntryProto.FromString(ours) == entry
    assert ModelProto.FromString(field(14, ours)).metadata_props[0] == entry


@given(numbers=st.lists(st.integers(1, 2**28)), value=st.binary(max_size=300))
def test_fields_are_found(numbers: list[int], value: bytes) -> None:
    data = b"".join(field(number, value) for number in numbers)
    found = list(fields(data))
    assert [f.number for f in found] == numbers
    assert all(data[f.value : f.end] == value for f in found)


@given(data=st.binary(max_size=200))
def test_other_bytes(data: bytes) -> None:
    """Every byte belongs to a field, up to the first other byte."""
    found, end = [], 0
    with suppress(ValueError):
        for each in fields(data):
            found.append(each)
            end = each.end
    assert [f.start for f in found] == [0, *(f.end for f in found)][: len(found)]
    assert all(f.start < f.value <= f.end <= end for f in found)


@pytest.mark.parametrize("data", [b"\x0a", b"\x0a\x05ab", b"\x0b", b"\x80" * 11, b"\x09\x00"])
def test_what_is_cut_off(data: bytes) -> None:
    with pytest.raises(ValueError, match=r"byte [01]"):
        list(fields(data))
