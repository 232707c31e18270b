"""Lives of values, and places that values with lives that meet do not share."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from row_programs import add, loop, made, relu, tiles

from mmfree_compiler.backends.liveness import Life, first_fit, largest_first, lives, roots
from mmfree_compiler.program import Program

SPANS = st.tuples(st.integers(0, 9), st.integers(0, 9)).map(sorted)
LIVES = st.lists(SPANS, min_size=1, max_size=3).map(lambda spans: _life(spans))
ORDERS = st.lists(st.dictionaries(st.sampled_from("abcdefghijkl"), LIVES), max_size=3)


@given(ORDERS, st.lists(st.integers(1, 50), min_size=12, max_size=12), st.booleans())
def test_first_fit_never_overlaps(
    orders: list[dict[str, Life]], numbers: list[int], sort: bool
) -> None:
    """In no order; values that are in none share everything."""
    sizes = dict(zip("abcdefghijkl", numbers, strict=True))
    offsets, size = first_fit(largest_first(sizes) if sort else sizes, orders)
    assert offsets.keys() == sizes.keys()
    assert size == max(offsets[name] + sizes[name] for name in sizes)
    for order in orders:
        for a, b in ((a, b) for a in order for b in order if a < b):
            together = _moments(order[a]) & _moments(order[b])
            apart = offsets[a] + sizes[a] <= offsets[b] or offsets[b] + sizes[b] <= offsets[a]
            assert apart or not together
    unknown = sizes.keys() - {name for order in orders for name in order}
    assert all(offsets[name] == 0 for name in unknown)


def _life(spans: list[list[int]]) -> Life:
    """One that is needed in several spans."""
    *before, (first, last) = spans
    return Life(first, last, tuple(Life(a, b) for a, b in before))


def _moments(life: Life) -> set[int]:
    spans = (life, *life.before)
    return {moment for span in spans for moment in range(span.first, span.last + 1)}


def test_no_memory_for_no_values() -> None:
    assert first_fit({}, [{}]) == ({}, 0)


def program() -> Program:
    """A value that is read in a loop, one that the loop carries, and one after it."""
    body = (
        tiles(relu("x", "a")),
        tiles(relu("x", "b")),
        loop("a", "y"),
        loop("y", "z", "2"),
        tiles(add("z", "b", "c")),
        tiles(relu("c", "d")),
    )
    return made(body, ("d",), ("x",))


def test_what_loops_carry_has_one_place() -> None:
    found = roots(program())
    carried = {"a", "wcarried", "wupdate", "y", "wcarried2", "wupdate2", "z"}
    assert {name for name, root in found.items() if root == "a"} == carried
    assert all(found[name] == name for name in found.keys() - carried)


def test_lives() -> None:
    """By kernels: a loop has two stages, of which one reads what the loop carries."""
    needed = [
        [{"a"}],
        [{"b"}],
        [{"wpositive"}, {"wpositive", "wcarried", "b", "wupdate"}],
        [{"wcarried2", "wpositive2"}, {"wcarried2", "wpositive2", "wupdate2"}],
        [{"z", "b", "c"}],
        [{"c"}],
    ]
    assert lives(program(), needed) == {
        "a": Life(0, 6),
        "b": Life(1, 6),
        "wpositive": Life(2, 3),
        "wpositive2": Life(4, 5),
        "c": Life(6, 7),
    }


def test_what_a_loop_reads_from_outside_lives_to_its_end() -> None:
    """Its next iteration reads it again."""
    needed: list[list[set[str]]] = [
        [{"a"}],
        [{"b"}],
        [{"b", "wpositive"}, {"wpositive"}],
        [set(), set()],
        [{"c"}],
        [],
    ]
    found = lives(program(), needed)
    assert found["b"] == Life(1, 3)
    assert found["wpositive"] == Life(2, 3)


def test_a_place_is_free_between_two_lives() -> None:
    """A step that makes all that it needs there begins anew, unless it reads what is there."""
    body = (
        tiles(relu("x", "a")),
        tiles(relu("a", "b")),
        tiles(relu("x", "c")),
        tiles(relu("x", "a2")),
        tiles(relu("a2", "d")),
    )
    needed = [[{"a"}], [{"a", "b"}], [{"c"}], [{"a2"}], [{"a2", "d"}]]
    program = made(body, ("d",), ("x",))
    places = roots(program) | {"a2": "a"}
    found = lives(program, needed, places)
    assert found["a"] == Life(3, 4, (Life(0, 1),))
    assert not found["a"].meets(found["c"])
    assert found["a"].meets(found["b"])
