"""Packing arguments, without a driver."""

from __future__ import annotations

import ctypes
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfree_compiler.backends.cuda.run.arguments import CODES, HIDDEN, Arguments
from mmfree_compiler.errors import ArtifactError

C_TYPES: dict[str, Any] = {
    "i32": ctypes.c_int32,
    "u32": ctypes.c_uint32,
    "i64": ctypes.c_int64,
    "u64": ctypes.c_uint64,
    "fp32": ctypes.c_float,
    "*i8": ctypes.c_uint64,
    "*fp32": ctypes.c_uint64,
}
VALUES = {
    "i32": st.integers(-(2**31), 2**31 - 1),
    "u32": st.integers(0, 2**32 - 1),
    "i64": st.integers(-(2**63), 2**63 - 1),
    "fp32": st.floats(width=32),
}
UNSIGNED = st.integers(0, 2**64 - 1)
PAIRS = st.sampled_from(sorted(C_TYPES)).flatmap(
    lambda kind: st.tuples(st.just(kind), VALUES.get(kind, UNSIGNED))
)


def _read(arguments: Arguments, kinds: list[str]) -> list[int | float]:
    """What a kernel reads: through the pointers, each value as its type."""
    pointers = (ctypes.c_void_p * len(kinds)).from_address(arguments.address)
    found = zip(kinds, pointers, strict=True)
    return [C_TYPES[kind].from_address(pointer or 0).value for kind, pointer in found]


def test_every_type_is_tested() -> None:
    assert {kind for kind in C_TYPES if not kind.startswith("*")} == CODES.keys()


@given(st.lists(PAIRS, max_size=40))
def test_kernels_read_what_was_packed_last(pairs: list[tuple[str, float]]) -> None:
    kinds, values = [kind for kind, _ in pairs], [value for _, value in pairs]
    arguments = Arguments("add", kinds)
    arguments.pack([1] * len(values))
    arguments.pack(values)
    found = _read(arguments, [*kinds, *["u64"] * HIDDEN])
    assert [*map(repr, found)] == [*map(repr, values), *["0"] * HIDDEN]  # repr: of NaN and -0 too


def test_floats_keep_their_bits() -> None:
    values = [-0.0, math.inf, math.ulp(0.0), 1e-45, 3.4028234663852886e38]
    arguments = Arguments("add", ["fp32"] * len(values))
    arguments.pack(values)
    bits = np.array(values, np.float32).view(np.uint32)
    assert arguments.values[:-HIDDEN].tolist() == bits.tolist()


def test_numbers_of_numpy_are_numbers() -> None:
    arguments = Arguments("add", ["*i8", "i32", "fp32"])
    values: list[Any] = [np.uint64(5), np.int64(-1), np.float32(0.5)]
    arguments.pack(values)
    assert _read(arguments, ["*i8", "i32", "fp32"]) == [5, -1, 0.5]


@pytest.mark.parametrize(
    ("kinds", "values"),
    [
        (["i32"], []),
        (["i32"], [1, 2]),
        (["i32"], [2**31]),
        (["u32"], [-1]),
        (["*i8"], [2**64]),
        (["i64"], [0.5]),
        (["fp32"], ["1"]),
        (["fp32"], [1e39]),
    ],
)
def test_values_that_do_not_fit_are_refused(kinds: list[str], values: list[float]) -> None:
    with pytest.raises(ArtifactError, match=r"kernel add\(.*\): does not take .*Compile the model"):
        Arguments("add", kinds).pack(values)


@pytest.mark.parametrize("kind", ["", "fp16", "i1", "constexpr", "I32", "nvTmaDesc"])
def test_unknown_types_are_refused(kind: str) -> None:
    with pytest.raises(ArtifactError, match="takes arguments of the unknown type"):
        Arguments("add", ["i32", kind])
