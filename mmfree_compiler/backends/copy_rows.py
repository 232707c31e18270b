"""Copying rows that kernels may not write in place, or cannot write as outputs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import ClassVar

from mmfree_compiler.program import Loop, Node, Program, Stage, Step, Value
from mmfree_compiler.wording import counted


@dataclass(frozen=True)
class CopyRows:
    """Copy inputs that a loop starts from, and outputs that tiles outside loops do not make.

    Loops overwrite the values that they carry. Only tiles outside loops write outputs: an output is
    copied if it is an input, is made by a row op or by a loop, or appears twice.
    """

    name: ClassVar[str] = "copy_rows"

    def __call__(self, program: Program) -> Program:
        starts = {program.fresh(f"{name}.copy"): name for name in _inputs_overwritten(program)}
        outputs = tuple(_output_names(program))
        ends = dict(zip(outputs, program.outputs, strict=True))
        ends = {new: old for new, old in ends.items() if new != old}
        values = {**program.values, **_values(program, starts), **_values(program, ends)}
        body = _with_ends(tuple(_with_starts(program.body, starts)), ends)
        copied = replace(program, values=values, body=body, outputs=outputs)
        found = f"{counted(len(starts), 'input')} and {counted(len(ends), 'output')} copied"
        return copied.noted(self.name, "program", found)


def _inputs_overwritten(program: Program) -> list[str]:
    loops = [step for step in program.body if isinstance(step, Loop)]
    initials = [initial for loop in loops for initial, _ in loop.carried]
    return [name for name in initials if name in program.inputs]


def _output_names(program: Program) -> Iterator[str]:
    """The outputs, with new names for those to copy."""
    written = {name for s in program.body if isinstance(s, Stage) for name in _tile_outputs(s)}
    seen: set[str] = set()
    for index, name in enumerate(program.outputs):
        yield name if name in written - seen else program.fresh(f"{name}.output{index}")
        seen.add(name)


def _tile_outputs(stage: Stage) -> Iterator[str]:
    for node in stage.tiles:
        yield from node.outputs


def _values(program: Program, copies: Mapping[str, str]) -> dict[str, Value]:
    return {new: replace(program.values[old], name=new) for new, old in copies.items()}


def _copy(new: str, old: str) -> Node:
    return Node("identity", (old,), (new,))


def _with_starts(body: Iterable[Step], starts: Mapping[str, str]) -> Iterator[Step]:
    """The body with the copies of inputs first, and with loops that start from the copies."""
    if starts:
        yield Stage((), tuple(_copy(new, old) for new, old in starts.items()))
    new_names = {old: new for new, old in starts.items()}
    for step in body:
        if isinstance(step, Loop):
            carried = tuple((new_names.get(first, first), inside) for first, inside in step.carried)
            yield replace(step, carried=carried)
        else:
            yield step


def _with_ends(body: tuple[Step, ...], ends: Mapping[str, str]) -> tuple[Step, ...]:
    """The body with the copies of outputs in its last stage, or in a new one after a loop."""
    if not ends:
        return body
    copies = tuple(_copy(new, old) for new, old in ends.items())
    last = body[-1] if body else None
    if isinstance(last, Stage):
        return (*body[:-1], replace(last, tiles=(*last.tiles, *copies)))
    return (*body, Stage((), copies))
