"""Values that share scratch memory: what kernels read is what was last written there."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pytest
import torch
from hypothesis import given
from op_modules import TinyLM
from row_programs import CASES, EVERY, programs
from test_cuda_schedule import planned_of, program_of

from mmfree_compiler.backends.cuda.compile.planned import PlannedProgram
from mmfree_compiler.backends.cuda.compile.schedule import Part, Run, schedule
from mmfree_compiler.backends.cuda.strides import CHUNK, OUTPUTS, round_up
from mmfree_compiler.backends.liveness import roots
from mmfree_compiler.program import Loop, Program

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
        return range(place.offset, place.offset + CHUNK * place.stride)

    def meet(self, name: str, other: str) -> bool:
        a, b = self.bytes_of(name), self.bytes_of(other)
        return a.start < b.stop and b.start < a.stop

    def run(self, part: Part, updated: Mapping[str, str]) -> None:
        """A kernel, whose programs run in any order. `updated`: what its updates may overwrite.

        Outputs that are made stay: it is as if every later kernel read them.
        """
        values = self.program.values.keys() - set(self.program.inputs)
        read = part.read & values | self.holds & {"outputs"}
        assert read <= self.holds, f"{part.name} reads {read - self.holds}"
        written = set(part.kept & self.program.places.keys())
        if not part.made.isdisjoint(self.program.outputs):
            written.add("outputs")
        for name in written:
            others = (read | written) - {name, updated.get(name)}
            assert not [other for other in others if self.meet(name, other)]
        kept = {old for old in self.holds if not any(self.meet(old, new) for new in written)}
        self.holds = kept | written

    def carry(self, names: dict[str, str]) -> None:
        """Give values other names."""
        for old, new in names.items():
            assert old in self.holds
            assert self.program.places[old] == self.program.places[new]
            self.holds = self.holds - {old} | {new}


def check(program: PlannedProgram) -> None:
    """In each kind of schedule, with all iterations of loops."""
    places = program.places.values()
    assert program.scratch == max((p.offset + CHUNK * p.stride for p in places), default=0)
    for kind in KINDS:
        memory = Memory(program)
        for step, run in zip(program.body, schedule(program, *kind), strict=True):
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
    for part in run.parts:
        memory.run(part, updated)


@pytest.fixture(scope="module")
def model() -> PlannedProgram:
    return program_of(TinyLM(L=3), torch.zeros(2, 3, dtype=torch.int64))


def test_a_language_model(model: PlannedProgram) -> None:
    check(model)


@pytest.mark.parametrize("name", CASES)
def test_a_program(name: str) -> None:
    check(planned_of(CASES[name].program))


@given(programs(EVERY))
def test_any_program(program: Program) -> None:
    check(planned_of(program))


def test_values_share_memory(model: PlannedProgram) -> None:
    """They take two thirds of what they would take side by side."""
    places = {root: model.places[root] for root in roots(model).values() if root in model.places}
    assert model.scratch < 0.7 * sum(CHUNK * place.stride for place in places.values())


def test_logits_take_the_place_of_rows() -> None:
    """A model with wide rows and a small vocabulary needs no more memory for its logits."""
    model = program_of(TinyLM(L=2, D=96), torch.zeros(2, 3, dtype=torch.int64))
    (logits,) = model.outputs
    assert model.output_start + 4 * OUTPUTS * model.values[logits].width <= model.scratch
