"""Giving values that one kernel makes and another reads a place in the device's memory."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import ClassVar

from mmfree_compiler.backends.cuda.compile.planned import Place, PlannedProgram
from mmfree_compiler.backends.cuda.compile.schedule import Run, schedule
from mmfree_compiler.backends.cuda.compile.shapes import PLANS
from mmfree_compiler.backends.cuda.strides import (
    CHUNK,
    OUTPUTS,
    codes_stride,
    float_stride,
    port_starts,
)
from mmfree_compiler.backends.liveness import Life, first_fit, largest_first, lives, roots
from mmfree_compiler.program import Loop, Program, Step, Value


@dataclass(frozen=True)
class PlanScratch:
    """Give every value CHUNK rows, which it shares with values that are needed at other times.

    All plans have the same places: values interfere if some kernel of any plan comes while both are
    needed. Programs of a kernel run in any order, so what it reads and makes interferes too. A
    kernel may start before those in front of it have ended (kernels/dependence.py), but waits for
    them before it reads or writes rows.

    The rows of outputs, which nobody reads before the last kernel has ended, have a place too. It
    may go beyond `scratch`: callers with other memory for their outputs need none for these.
    """

    name: ClassVar[str] = "plan_scratch"

    def __call__(self, program: Program) -> PlannedProgram:
        kinds = dict.fromkeys((plan.together, plan.fused) for plan in PLANS)
        schedules = [schedule(program, *kind) for kind in kinds]
        stored = _stored(program, schedules)
        outputs = program.fresh("outputs")
        orders = [
            lives(program, _needed(runs, stored)) | {outputs: _last(program, runs)}
            for runs in schedules
        ]
        owners = {name: owner for name, owner in roots(program).items() if name in stored}
        sizes = {owner: CHUNK * _stride(program.values[owner]) for owner in owners.values()}
        sizes = largest_first(sizes) | {outputs: _output_bytes(program)}
        offsets, _ = first_fit(sizes, orders)
        places = {
            name: Place(offsets[owner], sizes[owner] // CHUNK) for name, owner in owners.items()
        }
        end = max((place.offset + CHUNK * place.stride for place in places.values()), default=0)
        fields = vars(program.noted(self.name, "program", f"scratch: {end:,} bytes"))
        start = offsets[outputs]
        return PlannedProgram(**fields, places=places, scratch=end, output_start=start)


def _stored(program: Program, schedules: Iterable[Iterable[Run]]) -> frozenset[str]:
    """Values that need rows in some plan."""
    read = (part.read for runs in schedules for run in runs for part in run.parts)
    names = frozenset[str]().union(*read, *map(_carried, program.body))
    return names & program.values.keys() - set(program.inputs)


def _carried(step: Step) -> Iterable[str]:
    if isinstance(step, Loop):
        yield from (name for pair in step.carried for name in pair)
        yield from (*step.updates, *step.results)


def _needed(runs: Iterable[Run], stored: frozenset[str]) -> list[list[frozenset[str]]]:
    """The stored values that each kernel reads or makes."""
    return [[(part.read | part.kept) & stored for part in run.parts] for run in runs]


def _last(program: Program, runs: Iterable[Run]) -> Life:
    """The life of the rows of outputs: from the first kernel that makes some to the end."""
    parts = [part for run in runs for part in run.parts]
    made = [not part.made.isdisjoint(program.outputs) for part in parts]
    return Life(made.index(True), len(parts) - 1)


def _output_bytes(program: Program) -> int:
    sizes = [4 * program.values[name].width for name in program.outputs]
    return port_starts(sizes, OUTPUTS)[-1]


def _stride(value: Value) -> int:
    return codes_stride(value.width) if value.dtype == "int8" else 4 * float_stride(value.width)
