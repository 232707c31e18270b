"""weights.bin of several targets: what neighbours store alike is there once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pytest

from mmfree_compiler.artifact import pack_constants
from mmfree_compiler.artifact.ranges import joined, ordered
from mmfree_compiler.program import Constant

Constants = dict[str, Constant]


def constant(name: str, first: int, *, size: int = 100, dtype: str = "int8") -> Constant:
    """`size` bytes that begin with `first`."""
    data = (first + np.arange(size)).astype(np.uint8).view(dtype)
    return Constant(name, dtype, data.shape, (data,))


def named(*constants: Constant) -> Constants:
    return {constant.name: constant for constant in constants}


def names(targets: Sequence[Mapping[str, Constant]]) -> list[str]:
    return [" ".join(own) for own in targets]


def test_what_neighbours_store_alike_stands_at_their_ends() -> None:
    a = named(constant("x", 1), constant("w", 2), constant("y", 3))
    b = named(constant("w", 4), constant("y", 3), constant("x", 1), constant("z", 5))
    assert names(ordered([a, b])) == ["w x y", "x y w z"]
    assert names(ordered([b, a])) == ["w z y x", "y x w"]
    assert names(ordered([a])) == ["x w y"]


def test_a_constant_is_shared_with_one_neighbour() -> None:
    """It has one place in the range of a target."""
    a, b = named(constant("x", 1), constant("y", 2)), named(constant("x", 1), constant("z", 3))
    c = named(constant("z", 3), constant("x", 1))
    assert names(ordered([a, b, c])) == ["y x", "x z", "z x"]


@pytest.mark.parametrize(
    "other",
    [
        constant("x", 2),
        constant("x", 1, dtype="uint8"),
        constant("x", 1, size=104),
        Constant("x", "int8", (10, 10), (np.arange(1, 101, dtype=np.int8).reshape(10, 10),)),
        Constant("x", "int8", (100,), 2 * (np.arange(1, 101, dtype=np.int8),)),
        Constant("x", "int8", (100,), (np.arange(1, 101, dtype=np.int8),), "table"),
    ],
    ids=["data", "dtype", "size", "shape", "count", "role"],
)
def test_constants_that_differ(other: Constant) -> None:
    a, b = named(constant("x", 1), constant("y", 5)), named(constant("y", 6), other)
    assert names(ordered([a, b])) == ["x y", "y x"]


def size(*targets: Constants) -> int:
    """Of weights.bin, which has the bytes of each target where its range begins."""
    packed = [pack_constants(own.values()) for own in ordered(targets)]
    whole, starts = joined(packed)
    assert all(start % 64 == 0 for start in starts)
    for (weights, _), start in zip(packed, starts, strict=True):
        assert np.array_equal(whole[start : start + weights.size], weights)
    return whole.size


def test_bytes_that_are_shared_are_there_once() -> None:
    a = named(constant("x", 1), constant("w", 2), constant("y", 3))
    b = named(constant("w", 4), constant("y", 3), constant("x", 1), constant("z", 5))
    assert size(a) == 3 * 128
    assert size(a, b) == (1 + 2 + 2) * 128
    assert size(b, a) == (2 + 2 + 1) * 128
    assert size(a, a) == 3 * 128
    assert size(a, b, a) == (1 + 2 + 2 + 3) * 128


def test_ranges_without_common_bytes_follow_each_other() -> None:
    a, b = named(constant("x", 1)), named(constant("x", 2))
    assert size(a, b) == 2 * 128
    assert size(a, {}, b) == 2 * 128
    assert size({}, a) == 128
    assert size({}, {}) == 0


def test_a_target_may_lay_out_its_constants_as_it_likes() -> None:
    """Whatever it makes of the order and the gaps: only equal bytes are shared."""
    weights, tensors = pack_constants([constant("x", 1), constant("y", 2)])
    odd = np.concatenate([weights[128:], weights[:100]])  # not a multiple of 64 bytes
    moved = {name: entry.model_copy(update={"offset": 0}) for name, entry in tensors.items()}
    whole, starts = joined([(weights, tensors), (odd, moved), (weights, tensors)])
    assert starts == [0, 256, 512]
    assert np.array_equal(whole[:256], weights)
    assert np.array_equal(whole[256:484], odd)
    assert np.array_equal(whole[512:], weights)
    assert not whole[484:512].any()
