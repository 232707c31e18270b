"""Values that share scratch memory: what kernels read is what was last written there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from op_modules import TinyLM
from row_programs import CASES, EVERY, add, made, norm, programs, relu, scan, tiles
from test_cuda_schedule import planned_of, program_of

from mmfree_compiler.backends.cuda.compile.passes.plan_scratch import _chunk
from mmfree_compiler.backends.cuda.compile.planned import Iterations, PlannedProgram
from mmfree_compiler.backends.cuda.compile.schedule import (
    Part,
    Run,
    inner_values,
    moments,
    schedule,
)
from mmfree_compiler.backends.cuda.compile.shapes import CHUNKS
from mmfree_compiler.backends.cuda.strides import OUTPUTS, round_up
from mmfree_compiler.backends.liveness import roots
from mmfree_compiler.program import Loop, Program, Stage

KINDS = ((False, False), (True, False), (False, True))  # together, fused


@dataclass
class Memory:
    """The scratch memory while kernels run one after another; `holds` are the values in it."""

    program: PlannedProgram
    holds: set[str] = field(default_factory=set)

    def bytes_of(self, name: str) -> range:
        if name == "outputs":
            widths = [self.program.values[output].width for output in self.program.outputs]
            size = sum(round_up(4 * OUTPUTS * width) for width in widths)
            return range(self.program.output_start, self.program.output_start + size)
        place = self.program.places[name]
        assert place.offset % 16 == place.stride % 16 == 0
        return range(place.offset, place.end)

    def meet(self, name: str, other: str) -> bool:
        a, b = self.bytes_of(name), self.bytes_of(other)
        return a.start < b.stop and b.start < a.stop

    def run(self, parts: Sequence[Part], updated: Mapping[str, str]) -> None:
        """Kernels at once, whose programs run in any order. `updated`: what updates may overwrite.

        Outputs that are made stay: it is as if every later kernel read them.
        """
        read = {part.name: self.read(part) for part in parts}
        written = {part.name: self.written(part) for part in parts}
        for part in parts:
            others = {other.name for other in parts} - {part.name}
            assert read[part.name] <= self.holds, f"{part.name}: {read[part.name] - self.holds}"
            for name in written[part.name]:
                own = (read[part.name] | written[part.name]) - {name, updated.get(name)}
                own -= {old for old in read[part.name] if self.replaces(part, name, old)}
                needed = own.union(*(read[other] | written[other] for other in others))
                needed -= {name} & {"outputs"}  # each port has rows of its own
                assert not [other for other in needed if self.meet(name, other)]
        made = set().union(*written.values())
        kept = {old for old in self.holds if not any(self.meet(old, new) for new in made)}
        self.holds = kept | made

    def read(self, part: Part) -> set[str]:
        values = self.program.values.keys() - set(self.program.inputs)
        return set(part.read & values | self.holds & {"outputs"})

    def written(self, part: Part) -> set[str]:
        made = set(part.kept & self.program.places.keys())
        return made if part.made.isdisjoint(self.program.outputs) else made | {"outputs"}

    def replaces(self, part: Part, name: str, old: str) -> bool:
        """Whether each element of a value is made once no program needs the old one's."""
        if {name, old} & {"outputs"} or part.kind == "rows":
            return False
        uses = [node for node in part.nodes if old in node.inputs]
        by_columns = all(node.op != "ternary_linear" or old in node.inputs[4:] for node in uses)
        maker = next(k for k, node in enumerate(part.nodes) if name in node.outputs)
        before = all(old not in node.inputs for node in (*part.rows, *part.nodes[maker + 1 :]))
        return by_columns and before and self.program.places[name] == self.program.places[old]

    def carry(self, names: dict[str, str]) -> None:
        """Give values other names."""
        for old, new in names.items():
            assert old in self.holds
            assert self.program.places[old] == self.program.places[new]
            self.holds = self.holds - {old} | {new}


def check(program: PlannedProgram) -> None:
    """In each kind of schedule, with all iterations of loops."""
    places = program.places.values()
    assert program.scratch == max((place.end for place in places), default=0)
    inner = inner_values(program)
    for name, place in program.places.items():
        assert place.rows == (OUTPUTS if name in inner else program.chunk)
    for kind in KINDS:
        memory = Memory(program)
        for step, run in zip(program.called(kind[0]).body, schedule(program, *kind), strict=True):
            if isinstance(step, Loop):
                iterate(memory, step, run)
            else:
                run_all(memory, run, {})
        assert "outputs" in memory.holds


def iterate(memory: Memory, loop: Loop, run: Run) -> None:
    inside = [name for _, name in loop.carried]
    updated = dict(zip(loop.updates, inside, strict=True))
    memory.carry(dict(loop.carried))
    for iteration in range(run.count):
        if iteration:
            memory.carry(updated)
        run_all(memory, run, updated)
    memory.carry(dict(zip(loop.updates, loop.results, strict=True)))


def run_all(memory: Memory, run: Run, updated: Mapping[str, str]) -> None:
    for parts in moments(run):
        memory.run(parts, updated)


@pytest.fixture(scope="module")
def model() -> PlannedProgram:
    return program_of(TinyLM(L=3), torch.zeros(2, 3, dtype=torch.int64))


def test_a_language_model(model: PlannedProgram) -> None:
    check(model)


@pytest.mark.parametrize("name", CASES)
def test_a_program(name: str) -> None:
    check(planned_of(CASES[name].program))


@given(programs(EVERY), st.sampled_from(["module", "lm"]))
def test_any_program(program: Program, kind: Literal["module", "lm"]) -> None:
    check(planned_of(replace(program, kind=kind)))


def recurrent(updates: tuple[str, str]) -> Program:
    """Three layers that carry x and y: h = scan(x), then x = norm(h) + x and y = relu(h) + x."""
    late = Stage((norm("h", "r"),), (add("r", "c", "u"), relu("h", "p"), add("p", "c", "v")))
    body = (tiles(scan("c", "h"), add("c", "d", "early")), late)
    layers = Loop(3, body, (("a", "c"), ("b", "d")), updates, ("e", "f"))
    ends = (tiles(relu("x", "a"), relu("y", "b")), layers, tiles(add("e", "f", "end")))
    program = made(ends, ("end",), ("x", "y"))
    return replace(program, kind="lm", states=(replace(program.states[0], count=3),))


@pytest.mark.parametrize(
    ("updates", "apart"),
    [
        (("u", "v"), True),
        (("u", "early"), False),  # what another layer reads has to be whole
        (("u", "d"), False),
    ],
)
def test_a_last_layer(updates: tuple[str, str], apart: bool) -> None:
    program = planned_of(recurrent(updates))
    assert any(isinstance(step, Iterations) for step in program.together) == apart
    check(program)


def test_values_share_memory(model: PlannedProgram) -> None:
    """They take two thirds of what they would take side by side."""
    places = {root: model.places[root] for root in roots(model).values() if root in model.places}
    assert model.scratch < 0.7 * sum(place.rows * place.stride for place in places.values())


def test_logits_take_the_place_of_rows() -> None:
    """A model with wide rows and a small vocabulary needs no more memory for its logits."""
    model = program_of(TinyLM(L=2, D=96), torch.zeros(2, 3, dtype=torch.int64))
    (logits,) = model.outputs
    assert model.output_start + 4 * OUTPUTS * model.values[logits].width <= model.scratch


def test_a_residual_has_one_place(model: PlannedProgram) -> None:
    """What a layer carries is overwritten by each sum with it."""
    (loop,) = (step for step in model.body if isinstance(step, Loop))
    nodes = [node for stage in loop.body for node in stage.nodes if node.op == "add"]
    places = {model.places[node.outputs[0]] for node in nodes if node.outputs[0] in model.places}
    assert places == {model.places[inside] for _, inside in loop.carried}


def test_a_recurrence_overwrites_one_of_its_gates(model: PlannedProgram) -> None:
    (scan,) = {id(n): n for n in model.nodes() if n.op == "mlgru_scan"}.values()
    assert model.places[scan.outputs[0]] in {model.places[str(name)] for name in scan.inputs[:2]}


def test_wide_rows_make_calls_shorter() -> None:
    assert planned_of(CASES["a loop's"].program).chunk == CHUNKS[-1]
    sizes = [{chunk: chunk * width for chunk in CHUNKS} for width in (40_000, 50_000, 1_000_000)]
    assert list(map(_chunk, sizes)) == [CHUNKS[-1], *CHUNKS[:1] * 2]
