"""Records of an explanation survive JSON, whatever their texts and numbers are."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfree_compiler.errors import InputError
from mmfree_compiler.explaining.drawn import (
    Cost,
    GraphNode,
    NoteLine,
    ProgramGraph,
    StageBox,
    TimedPart,
)
from mmfree_compiler.explaining.schema import (
    Audit,
    Ceilings,
    Coverage,
    Difference,
    Explanation,
    FloatProduct,
    ModelFacts,
    PassStep,
    Snapshot,
    TargetPart,
)
from mmfree_compiler.wording import printable

TEXT = st.text(st.characters(codec="utf-8"), max_size=10)
COUNT = st.integers(0, 1 << 50)
NUMBER = st.none() | st.floats(0, allow_nan=False)


def tuples(members: st.SearchStrategy[object]) -> st.SearchStrategy[tuple[object, ...]]:
    return st.lists(members, max_size=2).map(tuple)


NOTES = tuples(st.builds(NoteLine, node=TEXT, text=TEXT))
COST = st.builds(
    Cost,
    constant_bytes=COUNT,
    state_bytes=COUNT,
    value_bytes=COUNT,
    integer_operations=COUNT,
    float_operations=COUNT,
    roofline_us=NUMBER,
    measured_us=NUMBER,
    reason=TEXT,
)
NODE = st.builds(
    GraphNode, id=TEXT, op=TEXT, kind=st.sampled_from(["row", "tile"]), notes=NOTES, cost=COST
)
PART_TIMES = st.builds(TimedPart, title=TEXT, nodes=tuples(TEXT), cost=COST)
GRAPH = st.builds(
    ProgramGraph,
    nodes=tuples(NODE),
    edges=st.just(()),
    stages=tuples(st.builds(StageBox, id=TEXT, title=TEXT, cost=COST, parts=tuples(PART_TIMES))),
    loops=st.just(()),
)
TABLE = st.dictionaries(TEXT, st.dictionaries(TEXT, COUNT | TEXT, max_size=2), max_size=2)
PART = st.builds(
    TargetPart,
    target=TEXT,
    builds=tuples(TEXT),
    runs_here=TEXT,
    program=st.none() | GRAPH,
    memory=TABLE,
    kernels=TABLE,
    how=TEXT,
    overlapping=st.booleans(),
    decode_us=NUMBER,
    roofline_us=NUMBER,
    others_us=st.dictionaries(TEXT, st.floats(allow_nan=False), max_size=2),
    ceilings=st.none() | st.builds(Ceilings, how=TEXT, bytes_per_second=NUMBER),
)
STEP = st.builds(
    PassStep,
    name=TEXT,
    stage=TEXT,
    purpose=TEXT,
    notes=NOTES,
    seconds=NUMBER,
    difference=st.builds(Difference, largest=NUMBER, reason=TEXT),
)
SNAPSHOT = st.builds(
    Snapshot,
    form=st.sampled_from(["graph", "program"]),
    nodes=COUNT,
    ops=st.dictionaries(TEXT, COUNT, max_size=2),
    text=TEXT,
    lines=COUNT,
)
PRODUCT = st.builds(FloatProduct, op=TEXT, node=TEXT, module=TEXT, source=TEXT, why=TEXT)
EXPLANATION = st.builds(
    Explanation,
    model=st.builds(ModelFacts, title=TEXT, kind=TEXT, layers=st.none() | COUNT),
    summary=TEXT,
    passes=tuples(STEP),
    snapshots=tuples(SNAPSHOT),
    targets=tuples(PART),
    coverage=tuples(st.builds(Coverage, op=TEXT, count=COUNT, targets=tuples(TEXT))),
    audit=st.none() | st.builds(Audit, where=TEXT, examined=COUNT, products=tuples(PRODUCT)),
    failed=TEXT,
)


@given(EXPLANATION)
def test_json_round_trip(explanation: Explanation) -> None:
    assert Explanation.from_json(explanation.json()) == explanation


@pytest.mark.parametrize("index", [1, -1])
@pytest.mark.parametrize("side", ["before", "after"])
def test_a_pass_names_snapshots_that_are_there(side: str, index: int) -> None:
    model, step = {"title": "m", "kind": "lm"}, {"name": "p", "stage": "graph", "purpose": ""}
    snapshot = {"form": "graph", "nodes": 1, "ops": {}, "text": "", "lines": 1}
    document = {"model": model, "snapshots": [snapshot], "passes": [step | {side: index}]}
    with pytest.raises(InputError, match="explanation: is not one: 1 fault"):
        Explanation.from_json(json.dumps(document))


@settings(max_examples=20)
@given(EXPLANATION)
def test_the_text_of_anything(explanation: Explanation) -> None:
    """Nothing in it acts on a terminal."""
    text = explanation.text(notes=True)
    assert printable(text) == text
