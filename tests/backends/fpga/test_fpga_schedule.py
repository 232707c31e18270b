"""List scheduling and places in memory: what touches the same stays in order."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmfree_compiler.backends.fpga.compile.allocate import allocate
from mmfree_compiler.backends.fpga.compile.draft import Buffer, Draft, Part
from mmfree_compiler.backends.fpga.compile.schedule import schedule
from mmfree_compiler.backends.fpga.spec import parse

SPEC = parse("ecp5-85")
BUFFERS = [Buffer(name, "scratch", lines) for lines, name in enumerate("abcdef", 1)]
one = st.sampled_from(BUFFERS)
# VEC, ROW, DMA, TMM; in place too.
DRAFTS = st.one_of(
    st.builds(lambda x, y, z, n: Draft.of("add", dst=x, a=y, b=z, n=n), one, one, one, st.just(40)),
    st.builds(lambda x, y, z: Draft.of("norm", dst=x, a=y, weight=z, eps=z, n=9), one, one, one),
    st.builds(lambda x: Draft.of("load", dst=x, n=16, address="state h"), one),
    st.builds(lambda x: Draft.of("store", a=x, n=16, address="state h"), one),
    st.builds(lambda x, n: Draft.of("params", dst=x, n=n), one, st.integers(1, 99)),
)


def kept_in_order(draft: Draft) -> set[tuple[str, bool]]:
    return {(name, access != "read") for name, access in draft.accesses().items()}


@given(st.lists(DRAFTS, max_size=10, unique_by=id))
def test_what_touches_the_same_stays_in_order(drafts: list[Draft]) -> None:
    scheduled = schedule(Part(3, drafts), SPEC)
    places = {id(draft): k for k, draft in enumerate(scheduled.drafts)}
    assert scheduled.count == 3
    assert places.keys() == {id(draft) for draft in drafts}
    for k, second in enumerate(drafts):
        for first in drafts[:k]:
            for (name, writes), (other, overwrites) in (
                (a, b) for a in kept_in_order(first) for b in kept_in_order(second)
            ):
                if name == other and (writes or overwrites):
                    assert places[id(first)] < places[id(second)]


def test_an_instruction_in_place_writes_what_it_reads() -> None:
    a, b = BUFFERS[:2]
    assert Draft.of("add", dst=a, a=a, b=b, n=16).accesses() == {"a": "update", "b": "read"}
    assert Draft.of("argmax", a=b, n=16).accesses() == {"ids": "update", "b": "read"}


def test_no_unit_waits_for_nothing() -> None:
    """The load and the second constant are taken while the norm runs."""
    a, b, c, d, e, _ = BUFFERS
    drafts = [
        Draft.of("params", dst=a, n=16),
        Draft.of("norm", dst=b, a=c, weight=a, eps=a, n=64),
        Draft.of("add", dst=b, a=b, b=b, n=16),
        Draft.of("params", dst=d, n=16),
        Draft.of("load", dst=e, n=16, address="state h"),
        Draft.of("add", dst=b, a=d, b=e, n=16),
    ]
    names = [draft.opcode.name for draft in schedule(Part(1, drafts), SPEC).drafts]
    assert names == ["params", "load", "norm", "params", "add", "add"]


def test_lives_in_and_around_loops() -> None:
    """What is read in a loop keeps its place through it; what only an iteration needs shares."""
    before, first, second = (Buffer(name, "scratch", 4) for name in ("before", "first", "second"))
    drafts = [
        Draft.of("params", dst=before, n=64),
        Draft.of("loop", count=2),
        Draft.of("copy", dst=first, a=before, n=64),
        Draft.of("store", a=first, n=64, address="output 0"),
        Draft.of("params", dst=second, n=64),
        Draft.of("store", a=second, n=64, address="output 0"),
        Draft.of("next"),
    ]
    found = allocate(drafts, {"scratch": 8}, tokens=1)
    assert found == {before: 0, first: 4, second: 4}
    assert allocate(drafts, {"scratch": 7}, tokens=1) is None


@pytest.mark.parametrize("tokens", [1, 5])
def test_rows_of_tokens_take_more(tokens: int) -> None:
    rows, single = Buffer("rows", "scratch", 3, "tokens"), Buffer("one", "scratch", 3)
    drafts = [Draft.of("params", dst=single, n=48), Draft.of("copy", dst=rows, a=single, n=48)]
    assert allocate(drafts, {"scratch": 3 * tokens + 3}, tokens) is not None
    assert allocate(drafts, {"scratch": 3 * tokens + 2}, tokens) is None
