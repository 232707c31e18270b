"""Rolling stages that repeat layer after layer into loops: code size is independent of depth."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import ClassVar

from mmfree_compiler.program import Constant, Loop, Node, Program, Stage, StateSlot, Value
from mmfree_compiler.wording import counted


@dataclass(frozen=True)
class RollLayers:
    """Find runs of `period` stages that repeat, differing in constants and states only.

    The longest run wins. A run is left as it is when its iterations are wired differently, when a
    later stage reads a value that only one iteration makes, or when an iteration's result could not
    overwrite what it started from.
    """

    name: ClassVar[str] = "roll_layers"

    def __call__(self, program: Program) -> Program:
        stages = tuple(program.stages())
        for start, period, count in sorted(_runs(program, stages), key=_coverage):
            rolled = _roll(program, stages, start, period, count)
            if rolled is not None:
                found = f"{count} iterations of {counted(period, 'stage')}"
                return rolled.noted(self.name, f"stage {start}", found)
        return program.noted(self.name, "program", "no stages repeat")


Run = tuple[int, int, int]  # first stage, stages per iteration, iterations


def _coverage(run: Run) -> tuple[int, int, int]:
    start, period, count = run
    return -period * count, period, start


def _runs(program: Program, stages: tuple[Stage, ...]) -> Iterator[Run]:
    """Maximal runs of stages whose signatures repeat."""
    signatures = [_signature(program, stage) for stage in stages]
    for period in range(1, len(stages) // 2 + 1):
        for start in range(len(stages) - 2 * period + 1):
            stop = start + period
            while stop < len(stages) and signatures[stop] == signatures[stop - period]:
                stop += 1
            if stop - start >= 2 * period:
                yield start, period, (stop - start) // period


def _signature(program: Program, stage: Stage) -> tuple[object, ...]:
    """The properties that must be equal in all iterations, apart from the wiring."""
    return (len(stage.rows), *(_node_signature(program, node) for node in stage.nodes))


def _node_signature(program: Program, node: Node) -> tuple[object, ...]:
    operands = tuple(_operand_signature(program, name) for name in node.inputs)
    widths = tuple(program.values[name].width for name in node.outputs)
    state = program.state(node.state).shape if node.state else None
    return node.op, tuple(sorted(node.attrs.items())), operands, widths, state


def _operand_signature(program: Program, name: str | None) -> object:
    constant = program.constants.get(name or "")
    return (constant.shape, constant.dtype) if constant else name is None


def _roll(
    program: Program, stages: tuple[Stage, ...], start: int, period: int, count: int
) -> Program | None:
    iterations = [
        tuple(chain.from_iterable(s.nodes for s in stages[at : at + period]))
        for at in range(start, start + period * count, period)
    ]
    names = [_match(program, iterations[0], nodes) for nodes in iterations[1:]]
    matched = [name for name in names if name is not None]
    if len(matched) < len(names):
        return None
    body, after = stages[start : start + period], stages[start + period * count :]
    carried = _carried(program, iterations, matched)
    if carried is None or not _sound(program, body, after, iterations, carried):
        return None
    return _build(program, stages, (start, period, count), carried, matched)


Rename = dict[str, str]  # a name of the first iteration -> the same thing in another


def _match(program: Program, first: tuple[Node, ...], other: tuple[Node, ...]) -> Rename | None:
    """One consistent renaming from the first iteration to another, or None."""
    rename: Rename = {}
    for a, b in zip(first, other, strict=True):
        rename |= dict(zip(a.outputs, b.outputs, strict=True))
    made = set(rename.values())
    for a, b in zip(first, other, strict=True):
        pairs = [*zip(a.inputs, b.inputs, strict=True), (_key(a.state), _key(b.state))]
        for x, y in pairs:
            if (x is None) != (y is None):
                return None
            if x is not None and y is not None and rename.setdefault(x, y) != y:
                return None
            if x in program.values and x not in _outputs(first) and y in made:
                return None
    return rename


def _key(state: str | None) -> str | None:
    """A state's name in a Rename: a value may be called as the state that it is made with."""
    return state and f"state {state}"


def _outputs(nodes: tuple[Node, ...]) -> tuple[str, ...]:
    return tuple(name for node in nodes for name in node.outputs)


def _carried(
    program: Program, iterations: list[tuple[Node, ...]], renames: list[Rename]
) -> dict[str, str] | None:
    """Initial value -> the value of the first iteration that takes its place, or None."""
    first = _outputs(iterations[0])
    carried: dict[str, str] = {}
    for name in sorted({name for node in iterations[0] for name in node.inputs if name}):
        if name not in program.values or name in first:
            continue
        sources = [rename[name] for rename in renames]
        if all(source == name for source in sources):
            continue  # the same in every iteration
        before = [first, *(_outputs(nodes) for nodes in iterations[1:-1])]
        places = {
            outputs.index(source) if source in outputs else -1
            for source, outputs in zip(sources, before, strict=True)
        }
        if len(places) > 1 or -1 in places:
            return None
        carried[name] = first[places.pop()]
    return carried if len(set(carried.values())) == len(carried) else None


def _sound(
    program: Program,
    body: tuple[Stage, ...],
    after: tuple[Stage, ...],
    iterations: list[tuple[Node, ...]],
    carried: dict[str, str],
) -> bool:
    """Whether results may overwrite initial values, and later stages read nothing but results."""
    later = {name for stage in after for node in stage.nodes for name in node.inputs}
    later |= set(program.outputs)
    first, last = _outputs(iterations[0]), _outputs(iterations[-1])
    results = {last[first.index(update)] for update in carried.values()}
    inner = {name for nodes in iterations for name in _outputs(nodes)}
    if later & (inner - results) or later & set(carried):
        return False
    return all(_in_place(body, initial, update) for initial, update in carried.items())


def _in_place(body: tuple[Stage, ...], initial: str, update: str) -> bool:
    """Whether `update`, made by tiles, comes after the last use of `initial` in an iteration.

    A tile may read the column that it then overwrites. A row op of the same stage may not: it may
    still run on other threads.
    """
    made = False
    for stage in body:
        makes = any(update in node.outputs for node in stage.tiles)
        if makes and any(initial in node.inputs for node in stage.rows):
            return False
        for node in stage.nodes:
            if made and initial in node.inputs:
                return False
            made = made or update in node.outputs
            if update in node.outputs and node in stage.rows:
                return False
    return made


def _build(
    program: Program,
    stages: tuple[Stage, ...],
    run: Run,
    carried: dict[str, str],
    renames: list[Rename],
) -> Program:
    start, period, count = run
    inside = {name: program.fresh(f"{name}.carried") for name in carried}
    outside = (*stages[:start], *stages[start + period * count :])
    stacks = _stacks(program, renames)
    shared = {name: program.fresh(f"{name}.each") for name in stacks.keys() & _read(outside)}
    results = tuple(renames[-1][update] for update in carried.values())
    loop = Loop(
        count,
        tuple(_renamed(stage, inside | shared) for stage in stages[start : start + period]),
        tuple(inside.items()),
        tuple(carried.values()),
        results,
    )
    values = {new: Value(new, program.values[name].width) for name, new in inside.items()}
    rolled = replace(
        program,
        values={**program.values, **values},
        body=(*stages[:start], loop, *stages[start + period * count :]),
    )
    constants = _constants(
        rolled, {shared.get(name, name): stack for name, stack in stacks.items()}
    )
    return replace(rolled, constants=constants, states=_stacked_states(program, renames))


def _read(stages: Iterable[Stage]) -> set[str]:
    nodes = chain.from_iterable(stage.nodes for stage in stages)
    return {name for node in nodes for name in node.inputs if name is not None}


def _renamed(stage: Stage, names: Rename) -> Stage:
    def rename(node: Node) -> Node:
        return replace(node, inputs=tuple(names.get(n, n) if n else None for n in node.inputs))

    return Stage(tuple(map(rename, stage.rows)), tuple(map(rename, stage.tiles)))


def _stacks(program: Program, renames: list[Rename]) -> dict[str, list[str]]:
    """Constants of the first iteration that differ from the others', and those of all."""
    names = program.constants.keys() & renames[0].keys()
    stacks = {name: [name, *(rename[name] for rename in renames)] for name in sorted(names)}
    return {name: stack for name, stack in stacks.items() if len(set(stack)) > 1}


def _constants(rolled: Program, stacks: Mapping[str, list[str]]) -> dict[str, Constant]:
    """The constants that are read; each stack is one, and its members are the parts."""
    found, used = dict(rolled.constants), _read(rolled.stages())
    for name, stack in stacks.items():
        parts = tuple(part for member in stack for part in rolled.constants[member].parts)
        found[name] = replace(rolled.constants[stack[0]], name=name, parts=parts)
    return {name: constant for name, constant in found.items() if name in used}


def _stacked_states(program: Program, renames: list[Rename]) -> tuple[StateSlot, ...]:
    keys = {slot: _key(slot.name) for slot in program.states}
    gone = {rename[key] for rename in renames for key in keys.values() if key in rename}
    return tuple(
        replace(slot, count=len(renames) + 1) if key in renames[0] else slot
        for slot, key in keys.items()
        if key not in gone
    )
