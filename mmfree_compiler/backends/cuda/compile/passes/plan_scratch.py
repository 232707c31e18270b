"""Giving values that one kernel makes and another reads a place in the device's memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import ClassVar

from mmfree_compiler.backends.cuda.compile.planned import Place, PlannedProgram
from mmfree_compiler.backends.cuda.compile.schedule import schedule
from mmfree_compiler.backends.cuda.strides import CHUNK, codes_stride, float_stride, round_up
from mmfree_compiler.program import Loop, Program, Value


@dataclass(frozen=True)
class PlanScratch:
    """Every value has its own rows, CHUNK of them, but those that a loop carries share theirs.

    Reusing rows would save little: those of all values of a 2.7B model take 40 MB.
    """

    name: ClassVar[str] = "plan_scratch"

    def __call__(self, program: Program) -> PlannedProgram:
        roots = _roots(program)
        places: dict[str, Place] = {}
        end = 0
        for name in dict.fromkeys(_stored(program)):
            root = roots.get(name, name)
            if root not in places:
                places[root] = Place(end, _stride(program.values[root]))
                end = round_up(end + CHUNK * places[root].stride)
            places[name] = places[root]
        fields = vars(program.noted(self.name, "program", f"scratch: {end:,} bytes"))
        return PlannedProgram(**fields, places=places, scratch=end)


def _stored(program: Program) -> Iterator[str]:
    """Values that need rows, perhaps several times."""
    for together in (False, True):
        for run in schedule(program, together):
            for part in run.parts:
                yield from sorted(part.read & program.values.keys() - set(program.inputs))
    for step in program.body:
        if isinstance(step, Loop):
            yield from (name for pair in step.carried for name in pair)
            yield from (*step.updates, *step.results)


def _roots(program: Program) -> Mapping[str, str]:
    """The value whose rows each carried value shares; a loop may start from another's result."""
    roots: dict[str, str] = {}
    for step in program.body:
        if isinstance(step, Loop):
            for (initial, inside), *others in zip(
                step.carried, step.updates, step.results, strict=True
            ):
                root = roots.get(initial, initial)
                roots |= dict.fromkeys((initial, inside, *others), root)
    return roots


def _stride(value: Value) -> int:
    return codes_stride(value.width) if value.dtype == "int8" else 4 * float_stride(value.width)
