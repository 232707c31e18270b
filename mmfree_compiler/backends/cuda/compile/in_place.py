"""Values that are made in the place of one that nobody needs any more.

Programs of tiles and scans have columns of their own, and read an element of a row before they make
that of another: residuals may overwrite what they are added to, and a recurrence its gate.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace

from mmfree_compiler.backends.cuda.compile.schedule import Part, Run, moments
from mmfree_compiler.backends.liveness import roots
from mmfree_compiler.program import Loop, Program, Step, stages_of

_READ_OTHERWISE = frozenset({"embedding", "short_conv", "ternary_linear"})


def places(
    program: Program, schedules: Sequence[Sequence[Run]], stored: Collection[str]
) -> dict[str, str]:
    """The value in whose place each is. `stored` are those that have rows in some schedule."""
    found = roots(program)
    taken: set[str] = set()
    inside = _inside(program)
    for step in program.body:
        for made, read in _pairs(program, step):
            new = {made, read} <= set(stored) and not {made, read} & taken
            if new and all(_may(runs, made, read, inside) for runs in schedules):
                found[made] = found[read]
                taken |= {made, read}
    return found


def _pairs(program: Program, step: Step) -> Iterator[tuple[str, str]]:
    """What a node of a step makes, and what it reads that has rows of the same size.

    Both are made anew in every iteration of a loop, or the latter is what it carries.
    """
    stages = stages_of(step)
    nodes = [node for stage in stages for node in stage.nodes]
    inside = {inside for _, inside in step.carried} if isinstance(step, Loop) else set()
    here = inside | {name for node in nodes for name in node.outputs} - _around_loops(program)
    for node in nodes:
        for made in here & set(node.outputs) if node.op not in _READ_OTHERWISE else ():
            for read in sorted(here & {name for name in node.inputs if name}):
                if replace(program.values[read], name=made) == program.values[made]:
                    yield made, read


def _around_loops(program: Program) -> set[str]:
    """What loops start from and update: roots() says where these are."""
    loops = [step for step in program.body if isinstance(step, Loop)]
    return {name for loop in loops for pair in (*loop.carried, loop.updates) for name in pair}


def _inside(program: Program) -> set[str]:
    """What iterations of loops begin with: it is there again when the next one begins."""
    loops = [step for step in program.body if isinstance(step, Loop)]
    return {inside for loop in loops for _, inside in loop.carried}


def _may(runs: Sequence[Run], made: str, read: str, inside: Collection[str]) -> bool:
    """Whether a schedule makes a value after everything else has read the other one."""
    makers = [n for n, run in enumerate(runs) if any(made in part.made for part in run.parts)]
    later = runs[makers[0] + 1 :] if makers and read not in inside else ()
    return all(_last_in(runs[n], made, read) for n in makers) and not any(
        any(read in part.read for part in run.parts)
        and not any(read in part.made for part in run.parts)
        for run in later
    )


def _last_in(run: Run, made: str, read: str) -> bool:
    """The same of a run that makes it."""
    together = moments(run)
    at, part = next((n, x) for n, parts in enumerate(together) for x in parts if made in x.made)
    others = [x for parts in together[at:] for x in parts if x is not part]
    return (
        not part.wanted
        and _reads_last(part, made, read)
        and all(read not in x.read for x in others)
    )


def _reads_last(part: Part, made: str, read: str) -> bool:
    """Whether no node of a part reads a value once it has made the other one."""
    if part.kind == "rows" or any(read in node.inputs for node in part.rows):
        return False
    order = [node for node in part.nodes if read in node.inputs or made in node.outputs]
    return read not in part.kept and made in order[-1].outputs
