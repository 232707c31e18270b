"""Giving values that one kernel makes and another reads a place in the device's memory."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from mmfree_compiler.backends.cuda.compile.in_place import places
from mmfree_compiler.backends.cuda.compile.planned import PeeledProgram, Place, PlannedProgram
from mmfree_compiler.backends.cuda.compile.schedule import Run, inner_values, moments, schedule
from mmfree_compiler.backends.cuda.compile.shapes import CHUNKS, PLANS
from mmfree_compiler.backends.cuda.strides import (
    OUTPUTS,
    codes_stride,
    float_stride,
    port_starts,
)
from mmfree_compiler.backends.liveness import Life, first_fit, largest_first, lives
from mmfree_compiler.program import Loop, Program, Step, Value

_MOST_BYTES = 90_000_000  # a process that decodes does not need long calls


@dataclass(frozen=True)
class PlanScratch:
    """Give every value rows, which it shares with values that are needed at other times.

    There are as many as a call has tokens, or wanted tokens. All plans have the same places: values
    interfere if some kernel of any plan comes while both are needed. Programs of a kernel run in
    any order, so what it reads and makes interferes too. A kernel may start before those in front
    of it have ended (kernels/dependence.py), but waits for them before it reads or writes rows, or
    else is beside one of them: Part.beside.

    Some values are made in the place of others (in_place.py).

    The rows of outputs, which nobody reads before the last kernel has ended, have a place too. It
    may go beyond `scratch`: callers with other memory for their outputs need none for these.
    """

    name: ClassVar[str] = "plan_scratch"

    def __call__(self, program: Program) -> PlannedProgram:
        assert isinstance(program, PeeledProgram)
        kinds = dict.fromkeys((plan.together, plan.fused) for plan in PLANS)
        schedules = [schedule(program, *kind) for kind in kinds]
        stored = _stored(program, schedules)
        outputs = program.fresh("outputs")
        everything = replace(program, body=(*program.body, *program.together))
        found = places(everything, schedules, stored)
        bodies = [program.called(together) for together, _ in kinds]
        owners = {name: owner for name, owner in found.items() if name in stored}
        orders = [
            lives(body, _needed(runs, stored), found) | {outputs: _last(program, runs)}
            for body, runs in zip(bodies, schedules, strict=True)
        ]
        rows = largest_first({owner: _stride(program.values[owner]) for owner in owners.values()})
        counts = {chunk: _counts(rows, inner_values(program), chunk) for chunk in CHUNKS}
        sizes = {
            chunk: {name: counts[chunk][name] * rows[name] for name in rows} for chunk in CHUNKS
        }
        chunk = _chunk({chunk: first_fit(sizes[chunk], orders)[1] for chunk in CHUNKS})
        offsets, _ = first_fit(sizes[chunk] | {outputs: _output_bytes(program)}, orders)
        planned = {
            name: Place(offsets[owner], rows[owner], counts[chunk][owner])
            for name, owner in owners.items()
        }
        end = max((place.end for place in planned.values()), default=0)
        text = f"calls of {chunk:,} tokens, scratch: {end:,} bytes"
        fields = vars(program.noted(self.name, "program", text))
        return PlannedProgram(
            **fields, places=planned, chunk=chunk, scratch=end, output_start=offsets[outputs]
        )


def _counts(names: Iterable[str], inner: Collection[str], chunk: int) -> dict[str, int]:
    """The rows of each value in calls of at most `chunk` tokens."""
    return {name: min(chunk, OUTPUTS) if name in inner else chunk for name in names}


def _chunk(nbytes: Mapping[int, int]) -> int:
    """The most tokens of a call whose rows take little memory: bytes by number of tokens."""
    fits = (chunk for chunk, size in nbytes.items() if size <= _MOST_BYTES)
    return max(fits, default=min(nbytes))


def _stored(program: PeeledProgram, schedules: Iterable[Iterable[Run]]) -> frozenset[str]:
    """Values that need rows in some plan."""
    read = (part.read for runs in schedules for run in runs for part in run.parts)
    steps = (*program.body, *program.together)
    names = frozenset[str]().union(*read, *map(_carried, steps))
    return names & program.values.keys() - set(program.inputs)


def _carried(step: Step) -> Iterable[str]:
    if isinstance(step, Loop):
        yield from (name for pair in step.carried for name in pair)
        yield from (*step.updates, *step.results)


def _needed(runs: Iterable[Run], stored: frozenset[str]) -> list[list[frozenset[str]]]:
    """The stored values that are read or made in each moment."""
    return [
        [
            frozenset().union(*((part.read | part.kept) & stored for part in parts))
            for parts in moments(run)
        ]
        for run in runs
    ]


def _last(program: Program, runs: Iterable[Run]) -> Life:
    """The life of the rows of outputs: from the first kernel that makes some to the end."""
    order = [parts for run in runs for parts in moments(run)]
    made = [any(not part.made.isdisjoint(program.outputs) for part in parts) for parts in order]
    return Life(made.index(True), len(order) - 1)


def _output_bytes(program: Program) -> int:
    sizes = [4 * program.values[name].width for name in program.outputs]
    return port_starts(sizes, OUTPUTS)[-1]


def _stride(value: Value) -> int:
    return codes_stride(value.width) if value.dtype == "int8" else 4 * float_stride(value.width)
