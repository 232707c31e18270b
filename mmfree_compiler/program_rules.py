"""The rules of a valid Program: `verify` runs after each pass.

Rules about ops (their kinds, their operands) are in the op table; these are the rules of the IR.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

from mmfree_compiler.errors import MmfreeError
from mmfree_compiler.program import Loop, Node, Program, Stage, Step, stages_of


def verify(program: Program, made_by: str) -> None:
    """Raise an MmfreeError that lists the first faults of the Program that pass `made_by` made."""
    faults = list(islice(_faults(program), 3))
    if faults:
        raise MmfreeError(f"pass {made_by}", "; ".join(faults), "This is a bug in the pass")


def _faults(program: Program) -> Iterator[str]:
    yield from _declarations(program)
    known = {*program.inputs, *program.constants}
    for at, step in enumerate(program.body):
        if isinstance(step, Loop):
            yield from _loop(program, step, known)
            later = {*_read(program.body[at + 1 :]), *program.outputs}
            yield from _in_place(step, {*_read(step.body), *later})
            known |= set(step.results)
        else:
            yield from _stage(program, step, known)
    yield from (f"output {name} is never made" for name in program.outputs if name not in known)
    yield from _states(program)


def _declarations(program: Program) -> Iterator[str]:
    """Each name has one meaning and one declaration."""
    for name in program.values.keys() & program.constants.keys():
        yield f"{name} is a value and a constant"
    for kind, table in (("value", program.values), ("constant", program.constants)):
        for name, declared in table.items():
            if declared.name != name:
                yield f"{kind} {name} is declared as {declared.name}"
    for name in (*program.inputs, *program.outputs):
        if name not in program.values:
            yield f"{name} is not declared"


def _stage(program: Program, stage: Stage, known: set[str], iterations: int = 1) -> Iterator[str]:
    """Operands are made before they are read. Adds the stage's outputs to `known`."""
    made_by_tiles = {name for node in stage.tiles for name in node.outputs}
    for node in stage.nodes:
        for name in filter(None, node.inputs):
            if name not in known:
                yield f"{node.op} reads {name} before it is made"
            if node in stage.rows and name in made_by_tiles:
                yield f"row op {node.op} reads {name}, which tiles of its stage make"
            yield from _parts(program, node, name, iterations)
        for name in node.outputs:
            if name not in program.values:
                yield f"{node.op} makes {name}, which is not declared"
            elif name in known:
                yield f"{node.op} makes {name} twice"
        known |= set(node.outputs)


def _parts(program: Program, node: Node, name: str, iterations: int) -> Iterator[str]:
    """A constant has one part, or one for each iteration of the loop it is read in."""
    constant = program.constants.get(name)
    if constant is not None and len(constant.parts) not in (1, iterations):
        parts = len(constant.parts)
        yield f"{node.op} reads {name}, which has {parts} parts, in {iterations} iterations"


def _loop(program: Program, loop: Loop, known: set[str]) -> Iterator[str]:
    if not len(loop.carried) == len(loop.updates) == len(loop.results):
        yield "a loop carries, updates and returns different numbers of values"
        return
    inside = known | {name for _, name in loop.carried}
    initials = [initial for initial, _ in loop.carried]
    for twice in sorted({name for name in initials if initials.count(name) > 1}):
        yield f"a loop starts two values from {twice}"
    for initial, _ in loop.carried:
        if initial not in known:
            yield f"a loop starts from {initial} before it is made"
    for stage in loop.body:
        yield from _stage(program, stage, inside, loop.count)
    for update in loop.updates:
        if update not in inside - known:
            yield f"a loop carries {update}, which no iteration makes"
    for name in (*(name for _, name in loop.carried), *loop.results):
        if name not in program.values:
            yield f"a loop makes {name}, which is not declared"


def _in_place(loop: Loop, read: set[str]) -> Iterator[str]:
    """Updates may overwrite what they update; `read` are the names read in the loop and later."""
    for (initial, inside), update in zip(loop.carried, loop.updates, strict=False):
        if initial in read:
            yield f"{initial} is read in or after the loop that overwrites it"
        made = False
        for node in (node for stage in loop.body for node in stage.nodes):
            if made and inside in node.inputs:
                yield f"{node.op} reads {inside} after its update {update} is made"
            made = made or update in node.outputs


def _read(steps: Iterable[Step]) -> Iterator[str]:
    """The names that `steps` read."""
    for step in steps:
        if isinstance(step, Loop):
            yield from (initial for initial, _ in step.carried)
            yield from _read(step.body)
        else:
            yield from (name for node in step.nodes for name in node.inputs if name)


def _states(program: Program) -> Iterator[str]:
    """Each state belongs to one scan, and has a part for each iteration that the scan runs."""
    counts = [
        (node.state, step.count if isinstance(step, Loop) else 1)
        for step in program.body
        for stage in stages_of(step)
        for node in stage.nodes
        if node.state is not None
    ]
    declared = {slot.name: slot.count for slot in program.states}
    if len(declared) < len(program.states):
        yield "two states share a name"
    if sorted(name for name, _ in counts) != sorted(declared):
        yield "states and scans do not match one to one"
    for name, count in counts:
        if declared.get(name, count) != count:
            yield f"state {name} has {declared[name]} parts for {count} iterations"
