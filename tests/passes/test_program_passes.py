"""The Program passes: golden text after each, and what each promises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_modules import TinyLM, mm
from torch import Tensor, nn

from mmfree_compiler import layouts, passes
from mmfree_compiler.ops import OPS
from mmfree_compiler.passes.group_stages import GroupStages
from mmfree_compiler.passes.pack_weights import PackWeights
from mmfree_compiler.passes.plan_memory import PlanMemory, _first_fit, _Life
from mmfree_compiler.passes.roll_layers import RollLayers
from mmfree_compiler.program import Loop, Node, Program, Stage
from mmfree_compiler.trace import trace

PIPELINE = (GroupStages(), RollLayers(), PackWeights(layouts.TILE16_2BIT.name), PlanMemory())


def lowered(module: nn.Module, *inputs: Tensor) -> Program:
    return passes.lower(passes.run(passes.GRAPH, trace(module, inputs)))


@pytest.fixture(scope="module")
def programs() -> dict[str, Program]:
    """TinyLM's program after `lower` and after each pass."""
    program = lowered(TinyLM(), torch.zeros(2, 3, dtype=torch.int64))
    found = {"lower": program}
    for step in PIPELINE:
        program = step(program)
        found[step.name] = program
    return found


@pytest.mark.parametrize("name", ["lower", *(step.name for step in PIPELINE)])
def test_program_text(
    name: str, programs: dict[str, Program], golden: Callable[[str, str], None]
) -> None:
    golden(f"program_{name}", str(programs[name]))


def test_a_layer_is_four_stages(programs: dict[str, Program]) -> None:
    (loop,) = (step for step in programs["roll_layers"].body if isinstance(step, Loop))
    assert (loop.count, len(loop.body)) == (3, 4)


def test_rolling_keeps_every_constant_and_state(programs: dict[str, Program]) -> None:
    before, after = programs["group_stages"], programs["roll_layers"]
    parts = [id(part) for c in before.constants.values() for part in c.parts]
    assert sorted(parts) == sorted(id(p) for c in after.constants.values() for p in c.parts)
    assert before.state_width == after.state_width


def test_stages_need_no_columns_of_their_own_tiles(programs: dict[str, Program]) -> None:
    for stage in programs["group_stages"].stages():
        made = {name for node in stage.tiles for name in node.outputs}
        assert not any(name in made for node in stage.rows for name in node.inputs)
        assert all(OPS[node.op].kind == "row" for node in stage.rows)


class Chain(nn.Module):
    """Layers whose result is needed again after the next: they must not be rolled in place."""

    def forward(self, x: Tensor) -> Tensor:
        before = x
        for _ in range(4):
            x, before = mm.add(mm.rms_norm(x, torch.ones(16), 1e-6), before), x
        out: Tensor = mm.add(x, before)
        return out


class Plain(nn.Module):
    """Residual layers on the caller's own rows."""

    def forward(self, x: Tensor) -> Tensor:
        for _ in range(4):
            y = mm.silu(mm.rms_norm(x, torch.ones(16), 1e-6))
            x = mm.add(x, mm.rms_norm(y, torch.ones(16), 1e-6))
        out: Tensor = mm.silu(x)
        return out


def rolled(module: nn.Module) -> Program:
    return RollLayers()(GroupStages()(lowered(module, torch.zeros(2, 3, 16))))


def test_crossed_carries_stay_unrolled() -> None:
    assert not any(isinstance(step, Loop) for step in rolled(Chain()).body)


def test_the_callers_rows_are_copied_before_a_loop_overwrites_them() -> None:
    program = rolled(Plain())
    (loop,) = (step for step in program.body if isinstance(step, Loop))
    ((initial, _),) = loop.carried
    assert initial not in program.inputs
    assert any(node.op == "identity" for node in program.nodes())


def test_values_that_share_a_stage_do_not_share_storage(programs: dict[str, Program]) -> None:
    program = programs["plan_memory"]
    (loop,) = (step for step in program.body if isinstance(step, Loop))
    same = dict.fromkeys((*loop.carried[0], *loop.updates, *loop.results), loop.carried[0][0])
    for stage in program.stages():
        names = {n for node in stage.nodes for n in (*node.inputs, *node.outputs) if n}
        spans = {}
        for name in names & program.storage.keys():
            storage = program.storage[name]
            stop = storage.offset + storage.stride
            assert storage.stride >= program.values[name].stride
            spans[same.get(name, name)] = (storage.arena, storage.offset, stop)
            assert stop <= program.arenas[storage.arena]
        held = list(spans.values())
        for i, (arena, start, stop) in enumerate(held):
            for other, first, last in held[:i]:
                assert arena != other or stop <= first or last <= start


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 9), st.integers(0, 9)), max_size=30))
def test_first_fit_never_overlaps(pieces: list[tuple[int, int, int]]) -> None:
    lives = [
        _Life("shared", width, [str(i)], min(a, b), max(a, b))
        for i, (width, a, b) in enumerate(pieces)
    ]
    offsets, size = _first_fit(lives)
    for i, a in enumerate(lives):
        assert offsets[i] + a.width <= size
        for j, b in enumerate(lives[:i]):
            together = a.first <= b.last and b.first <= a.last
            apart = offsets[i] + a.width <= offsets[j] or offsets[j] + b.width <= offsets[i]
            assert apart or not together


def test_a_stage_per_node_is_grouped_again(programs: dict[str, Program]) -> None:
    """Grouping does not depend on how its input was cut."""

    def alone(node: Node) -> Stage:
        return Stage((node,), ()) if OPS[node.op].kind == "row" else Stage((), (node,))

    grouped = programs["group_stages"]
    cut = replace(grouped, body=tuple(alone(node) for node in grouped.nodes()))
    assert GroupStages()(cut).body == grouped.body
