"""The rules of Programs: each is broken once, and the pass that broke it is named."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from op_modules import TinyLM

from mmfree_compiler import passes
from mmfree_compiler.errors import MmfreeError
from mmfree_compiler.passes import run
from mmfree_compiler.program import Loop, Node, Program, Stage, Value
from mmfree_compiler.program_rules import verify
from mmfree_compiler.trace import trace


@pytest.fixture(scope="module")
def good() -> Program:
    """Three layers in a loop, with a stage before it and one behind it; one scan."""
    graph = run(passes.GRAPH, trace(TinyLM(), (torch.zeros(2, 3, dtype=torch.int64),)))
    return run(passes.PROGRAM, passes.lower(graph))


def test_a_good_program_is_valid(good: Program) -> None:
    verify(good, "pass")
    assert [type(step) for step in good.body] == [Stage, Loop, Stage]


def with_loop(program: Program, **changes: Any) -> Program:
    """`changes` are of the loop's fields."""
    body = (replace(step, **changes) if isinstance(step, Loop) else step for step in program.body)
    return replace(program, body=tuple(body))


def loop_of(program: Program) -> Loop:
    (loop,) = (step for step in program.body if isinstance(step, Loop))
    return loop


def with_node(program: Program, op: str, **changes: Any) -> Program:
    """`changes` are of the fields of the first node of `op`."""
    first = next(node for node in program.nodes() if node.op == op)

    def node(old: Node) -> Node:
        return replace(old, **changes) if old is first else old

    def stage(old: Stage) -> Stage:
        return Stage(tuple(map(node, old.rows)), tuple(map(node, old.tiles)))

    changed = with_loop(program, body=tuple(map(stage, loop_of(program).body)))
    body = (stage(step) if isinstance(step, Stage) else step for step in changed.body)
    return replace(changed, body=tuple(body))


def without(table: Any, name: str) -> dict[str, Any]:
    return {key: value for key, value in table.items() if key != name}


def with_parts(program: Program, name: str, count: int) -> Program:
    constant = program.constants[name]
    changed = replace(constant, parts=(constant.parts * 3)[:count])
    return replace(program, constants={**program.constants, name: changed})


def rows_behind_tiles(program: Program) -> Program:
    """The stage behind the loop with the row op reading what a tile op of its stage makes."""
    *before, last = program.body
    assert isinstance(last, Stage)
    (row,), (tile,) = last.rows, last.tiles
    swapped = Stage((replace(tile),), (replace(row),))
    return replace(program, body=(*before, swapped))


# rule -> (what breaks it, a pattern of what is said)
BROKEN: dict[str, tuple[Callable[[Program], Program], str]] = {
    "a name means one thing": (
        lambda p: replace(
            p, constants={**p.constants, "ids": replace(p.constants["norm"], name="ids")}
        ),
        "ids is a value and a constant",
    ),
    "values know their names": (
        lambda p: replace(p, values={**p.values, "ids": Value("other", 1, "int64")}),
        "value ids is declared as other",
    ),
    "constants know their names": (
        lambda p: replace(p, constants={**p.constants, "norm": p.constants["head_scale"]}),
        "constant norm is declared as head_scale",
    ),
    "inputs are declared": (lambda p: replace(p, inputs=("ids", "more")), "more is not declared"),
    "outputs are declared": (
        lambda p: replace(p, values=without(p.values, p.outputs[0])),
        "ternary_linear_21 is not declared",
    ),
    "outputs are made": (
        lambda p: replace(p, body=p.body[:-1]),
        "output ternary_linear_21 is never made",
    ),
    "operands are made before": (
        lambda p: replace(p, body=(p.body[1], p.body[0], *p.body[2:])),
        "a loop starts from embedding before it is made",
    ),
    "operands of a stage are made before": (
        lambda p: replace(p, body=(p.body[0], *p.body[2:])),
        "norm_quant reads add_5 before it is made",
    ),
    "operands exist": (
        lambda p: replace(p, constants=without(p.constants, "table")),
        "embedding reads table before it is made",
    ),
    "what a loop makes stays inside": (
        lambda p: with_node(p, "embedding", inputs=("add", "table")),
        "embedding reads add before it is made",
    ),
    "rows do not read tiles of their stage": (
        rows_behind_tiles,
        "row op ternary_linear reads norm_quant_12.0, which tiles of its stage make",
    ),
    "constants in a loop have one part or one per iteration": (
        lambda p: with_parts(p, "layers.0.wi", 2),
        "ternary_linear reads layers.0.wi.* 2 parts,? in 3 iterations",
    ),
    "constants outside a loop have one part": (
        lambda p: with_parts(p, "table", 3),
        "embedding reads table.* 3 parts,? in 1 iterations",
    ),
    "what is made is declared": (
        lambda p: replace(p, values=without(p.values, "embedding")),
        "embedding makes embedding, which is not declared",
    ),
    "a value is made once": (
        lambda p: replace(p, body=(p.body[0], p.body[0], *p.body[1:])),
        "embedding makes embedding twice",
    ),
    "inputs are not made": (
        lambda p: with_node(p, "embedding", outputs=("ids",)),
        "embedding makes ids twice",
    ),
    "constants are not made": (
        lambda p: with_node(p, "embedding", outputs=("norm",)),
        "embedding makes norm, which is not declared",
    ),
    "a loop updates all that it carries": (
        lambda p: with_loop(p, updates=()),
        "a loop carries, updates and returns different numbers of values",
    ),
    "a loop returns all that it carries": (
        lambda p: with_loop(p, results=("add_5", "add_4")),
        "a loop carries, updates and returns different numbers of values",
    ),
    "a loop starts from what is made": (
        lambda p: with_loop(p, carried=(("add_5", "embedding.carried"),)),
        "a loop starts from add_5 before it is made",
    ),
    "updates are made in the loop": (
        lambda p: with_loop(p, updates=("embedding",)),
        "a loop carries embedding, which no iteration makes",
    ),
    "initial values are not read after the loop": (
        lambda p: replace(p, body=(*p.body, Stage((), (Node("silu", ("embedding",), ("add",)),)))),
        "embedding is read in or after the loop that overwrites it",
    ),
    "initial values are not read in the loop": (
        lambda p: with_node(p, "norm_quant", inputs=("embedding", *[None] * 4)),
        "embedding is read in or after the loop that overwrites it",
    ),
    "two loops do not start from one value": (
        lambda p: replace(p, body=(*p.body, loop_of(p))),
        "embedding is read in or after the loop that overwrites it",
    ),
    "initial values are not outputs": (
        lambda p: replace(p, outputs=("embedding",)),
        "embedding is read in or after the loop that overwrites it",
    ),
    "carried values are not read after their update": (
        lambda p: with_loop(p, updates=("ternary_linear_3",)),
        "add reads embedding.carried after its update ternary_linear_3 is made",
    ),
    "carried values are declared": (
        lambda p: replace(p, values=without(p.values, "embedding.carried")),
        "a loop makes embedding.carried, which is not declared",
    ),
    "results are declared": (
        lambda p: replace(p, values=without(p.values, "add_5")),
        "a loop makes add_5, which is not declared",
    ),
    "states have names of their own": (
        lambda p: replace(p, states=p.states * 2),
        "two states share a name",
    ),
    "scans have a state": (lambda p: replace(p, states=()), "states and scans do not match"),
    "states have a scan": (
        lambda p: with_node(p, "mlgru_scan", state=None),
        "states and scans do not match",
    ),
    "states have a part per iteration": (
        lambda p: replace(p, states=(replace(p.states[0], count=2),)),
        "state mlgru_scan has 2 parts for 3 iterations",
    ),
}


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_found(good: Program, rule: str) -> None:
    breaks, said = BROKEN[rule]
    with pytest.raises(MmfreeError) as caught:
        verify(breaks(good), "breaker")
    assert caught.value.thing == "pass breaker"
    assert re.search(said, caught.value.cause)
    assert caught.value.hint.startswith("This is a bug")


def test_two_scans_do_not_share_a_state(good: Program) -> None:
    scan = next(node for node in good.nodes() if node.op == "mlgru_scan")
    again = replace(scan, outputs=("again",), inputs=("embedding", "embedding", None))
    first = good.body[0]
    assert isinstance(first, Stage)
    values = {**good.values, "again": Value("again", 24)}
    body = (Stage((), (*first.tiles, again)), *good.body[1:])
    with pytest.raises(MmfreeError, match="states and scans do not match one to one"):
        verify(replace(good, values=values, body=body), "breaker")


def test_the_first_faults_are_listed(good: Program) -> None:
    """Some of them: one mistake has many consequences."""
    with pytest.raises(MmfreeError) as caught:
        verify(replace(good, values={}), "breaker")
    assert caught.value.cause.count("; ") == 2


class Breaks:
    name = "breaks"

    def __call__(self, program: Program) -> Program:
        return replace(program, states=())


def test_a_pipeline_verifies_after_each_pass(good: Program) -> None:
    with pytest.raises(MmfreeError, match="pass breaks: states and scans"):
        run((Breaks(), *passes.PROGRAM), good)
    with pytest.raises(MmfreeError, match="pass input: states and scans"):
        run((), Breaks()(good))
