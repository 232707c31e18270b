"""What becomes one kernel: the parts of a stage, and the stages that only wanted tokens need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from mmfree_compiler.backends.cuda.compile.fusible import ends_of, gates_of, is_fusible
from mmfree_compiler.backends.cuda.compile.planned import Iterations, PeeledProgram
from mmfree_compiler.program import Loop, Node, Program, Stage, Step, stages_of

# rows: one program per token. tiles: a program makes columns of some tokens. scan: a program makes
# columns of one sequence, token by token. fused: a program makes the rows of one token, as all
# others do, and some columns from them.
Kind = Literal["rows", "tiles", "scan", "fused"]


@dataclass(frozen=True)
class Part:
    """The nodes of a stage that one kernel runs, after those of the parts before it.

    `wanted`: it runs for the tokens whose outputs are needed, and values of such parts have one row
    for each of these. `rows` are the nodes that make rows, where a fused part has both kinds.
    `kept` are the values that other parts read. Of `gates`, memory has silu: only gated_norm reads
    them. `first`: no kernel of a call is in front of it. `beside`: it needs nothing of the part in
    front of it, so both may run at once.
    """

    name: str
    kind: Kind
    nodes: tuple[Node, ...]
    wanted: bool = False
    rows: tuple[Node, ...] = ()
    kept: frozenset[str] = frozenset()
    gates: frozenset[str] = frozenset()
    first: bool = False
    beside: bool = False

    @property
    def made(self) -> frozenset[str]:
        return frozenset(name for node in (*self.rows, *self.nodes) for name in node.outputs)

    @property
    def codes(self) -> list[str]:
        """The codes that products read."""
        nodes = [node for node in self.nodes if node.op == "ternary_linear"]
        return [str(node.inputs[0]) for node in nodes]

    @property
    def read(self) -> frozenset[str]:
        """Values and constants from outside."""
        nodes = (*self.rows, *self.nodes)
        names = {name for node in nodes for name in node.inputs if name is not None}
        return frozenset(names) - self.made


@dataclass(frozen=True)
class Run:
    """Parts in order, in `count` iterations of a loop, from number `first` on."""

    count: int
    parts: tuple[Part, ...]
    first: int = 0


def schedule(program: PeeledProgram, together: bool, fused: bool = False) -> list[Run]:
    """The kernels of a call, in order.

    `together`: a sequence may have several tokens, so recurrences go through them one by one.
    `fused`: rows are made again by every program that needs them, where that is possible and
    cheap: the calls are of one token.
    """
    names = _names(program)
    called = program.called(together)
    needed = wanted_from(called.body)
    runs = []
    for index, step in enumerate(called.body):
        updates = frozenset(step.updates if isinstance(step, Loop) else ())
        parts: list[Part] = []
        for each in stages_of(step):
            after = _after_states(each, updates) if together else ()
            name, wanted = names[id(each)], index >= needed
            if fused and is_fusible(called, each):
                parts.append(Part(f"{name}_fused", "fused", each.tiles, wanted, each.rows))
            else:
                parts += _parts(called, each, name, after, wanted)
        first = step.first if isinstance(step, Iterations) else 0
        runs.append(Run(step.count if isinstance(step, Loop) else 1, tuple(parts), first))
    return _linked(called, runs)


def _names(program: PeeledProgram) -> dict[int, str]:
    """The name of each stage: a stage that runs in several places has one, and its kernels too."""
    stages = _all_stages((*program.body, *program.together))
    return {key: f"stage{n}" for n, key in enumerate(dict.fromkeys(map(id, stages)))}


def _linked(program: Program, runs: Sequence[Run]) -> list[Run]:
    """Runs whose parts know what others read of theirs.

    Where programs make rows again, each column's own program makes silu of a gate, once.
    """
    parts = [part for run in runs for part in run.parts]
    read = ends_of(program).union(*(part.read for part in parts))
    fused = [part.made for part in parts if part.kind == "fused"]
    gates = frozenset[str]().union(*fused) & gates_of(program)
    first = parts[0] if parts else None
    return [
        replace(run, parts=tuple(_link(part, read, gates, part is first) for part in run.parts))
        for run in runs
    ]


def _link(part: Part, read: frozenset[str], gates: frozenset[str], first: bool) -> Part:
    own = gates if part.kind == "fused" else frozenset()
    return replace(part, kept=part.made & read, gates=own, first=first)


def _parts(
    program: Program, stage: Stage, name: str, after: tuple[Node, ...], wanted: bool
) -> Iterator[Part]:
    if stage.rows:
        yield Part(f"{name}_rows", "rows", stage.rows, wanted)
    beside = _beside(program, stage, after)
    before = tuple(node for node in stage.tiles if node not in (*after, *beside))
    for width, nodes in _by_width(program, before):
        kind = "before" if after else "tiles"
        yield Part(f"{name}_{kind}{width}", "tiles", nodes, wanted)
    for width, nodes in _by_width(program, after):
        yield Part(f"{name}_scan{width}", "scan", nodes, wanted)
    for width, nodes in _by_width(program, beside):
        yield Part(f"{name}_beside{width}", "tiles", nodes, wanted, beside=True)


def _by_width(program: Program, nodes: tuple[Node, ...]) -> Iterator[tuple[int, tuple[Node, ...]]]:
    """Columns are independent: what has other columns can be made by another kernel."""
    widths = [program.values[node.outputs[0]].width for node in nodes]
    for width in dict.fromkeys(widths):
        yield width, tuple(x for x, own in zip(nodes, widths, strict=True) if own == width)


def _beside(program: Program, stage: Stage, after: tuple[Node, ...]) -> tuple[Node, ...]:
    """The nodes with products that no recurrence needs: it is a chain that leaves a GPU idle.

    None where it overwrites a carried value, which one of them may read.
    """
    updates = {name for step in program.body if isinstance(step, Loop) for name in step.updates}
    if not after or any(updates & set(node.outputs) for node in after):
        return ()
    before = [node for node in stage.tiles if node not in after]
    needed = {name for node in after for name in node.inputs}
    for node in reversed(before):
        if needed & set(node.outputs):
            needed |= set(node.inputs)
    others = tuple(node for node in before if not needed & set(node.outputs))
    return others if any(node.op == "ternary_linear" for node in others) else ()


def _after_states(stage: Stage, updates: frozenset[str]) -> tuple[Node, ...]:
    """The nodes that have a state, and those that read what they make.

    Updates of carried values too: they overwrite values that one of the others may read.
    """
    if all(node.state is None for node in stage.tiles):
        return ()
    made: set[str] = set()
    found = []
    for node in stage.tiles:
        if node.state is not None or made & set(node.inputs) or updates & set(node.outputs):
            made |= set(node.outputs)
            found.append(node)
    return tuple(found)


def moments(run: Run) -> list[list[Part]]:
    """The parts of a run, in order, with those that may run at once side by side."""
    found: list[list[Part]] = []
    for part in run.parts:
        if part.beside:
            found[-1].append(part)
        else:
            found.append([part])
    return found


def inner_values(program: PeeledProgram) -> frozenset[str]:
    """Values that have one row for each wanted token."""
    runs = [run for together in (False, True) for run in schedule(program, together)]
    parts = [part for run in runs for part in run.parts if part.wanted]
    return frozenset(name for part in parts for name in part.made)


def is_for_wanted(body: Sequence[Step]) -> bool:
    """Whether the last stage is needed only for tokens whose outputs are."""
    return bool(body) and wanted_from(body) < len(body)


def wanted_from(body: Sequence[Step]) -> int:
    """The first step of those that only wanted tokens need: the last stages, without states.

    Products read codes of their own rows, so codes have to be made there too.
    """
    first = len(body)
    while first and _is_free(body[first - 1]):
        first -= 1
    while first < len(body) and not has_codes(_all_stages(body[first:])):
        first += 1
    return first


def _is_free(step: Step) -> bool:
    """What a loop carries has a row for every token."""
    alone = not isinstance(step, Loop) or (isinstance(step, Iterations) and not step.carried)
    return alone and all(node.state is None for stage in stages_of(step) for node in stage.nodes)


def _all_stages(steps: Iterable[Step]) -> list[Stage]:
    return [stage for step in steps for stage in stages_of(step)]


def has_codes(stages: Iterable[Stage]) -> bool:
    """Whether products read codes that these stages make."""
    nodes = [node for stage in stages for node in stage.nodes]
    made = {name for node in nodes for name in node.outputs}
    return all(set(node.inputs[:2]) <= made for node in nodes if node.op == "ternary_linear")
