"""Running what follows the last recurrence of a prompt for the tokens whose outputs are wanted."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from itertools import chain
from typing import ClassVar

from mmfree_compiler.backends.cuda.compile.planned import Iterations, PeeledProgram
from mmfree_compiler.backends.cuda.compile.schedule import has_codes, wanted_from
from mmfree_compiler.program import Loop, Node, Program, Stage, Step
from mmfree_compiler.wording import counted


@dataclass(frozen=True)
class PeelLast:
    """Take the last iteration of the last loop apart, in calls with several tokens of a sequence.

    States need every token, and so does each layer whose output another one's recurrence reads. In
    the last layer, nothing behind the recurrence is needed for tokens whose outputs nobody wants:
    of a prompt, for all but one. Those stages become steps of their own, with values of their own,
    which have rows for wanted tokens alone (schedule.py).
    """

    name: ClassVar[str] = "peel_last"

    def __call__(self, program: Program) -> PeeledProgram:
        at = wanted_from(program.body) - 1
        step = program.body[at] if at >= 0 else None
        before, after = _halves(step) if isinstance(step, Loop) else ((), ())
        if program.kind != "lm" or not after:
            same = program.noted(self.name, "program", "no stage follows the last recurrence")
            return PeeledProgram(**vars(same), together=program.body)
        assert isinstance(step, Loop)
        values, steps = _peeled(program, step, before, after, program.body[at + 1 :])
        text = f"in prompts, {counted(len(after), 'stage')} of the last layer for wanted tokens"
        fields = vars(program.noted(self.name, "program", text)) | {"values": values}
        return PeeledProgram(**fields, together=(*program.body[:at], *steps))


def _halves(loop: Loop) -> tuple[tuple[Stage, ...], tuple[Stage, ...]]:
    """The stages of an iteration to the last one with a state, and those behind it.

    There are none behind it where they cannot run for some tokens alone: products read codes of
    their own rows, and what the loop carries has to be whole until the recurrence has read it.
    """
    states = [n for n, stage in enumerate(loop.body) if any(node.state for node in stage.nodes)]
    cut = max(states, default=len(loop.body) - 1) + 1
    before, after = loop.body[:cut], loop.body[cut:]
    whole = loop.count > 1 and set(loop.updates) <= _made(after) and has_codes(after)
    return (before, after) if whole else (loop.body, ())


def _made(stages: Iterable[Stage]) -> set[str]:
    return {name for stage in stages for node in stage.nodes for name in node.outputs}


def _peeled(
    program: Program,
    loop: Loop,
    before: tuple[Stage, ...],
    after: tuple[Stage, ...],
    rest: Iterable[Step],
) -> tuple[Mapping[str, object], tuple[Step, ...]]:
    """The Program's values with new ones, and the steps in place of the loop and of the `rest`."""
    last = loop.count - 1
    inside = tuple(name for _, name in loop.carried)
    kept = {name: program.fresh(f"{name}.kept") for name in inside}
    wanted = {name: program.fresh(f"{name}.wanted") for name in sorted(_made(after))}
    first = replace(loop, count=last)
    carried = tuple(zip(loop.results, inside, strict=True))
    recurrence = Iterations(1, before, carried, inside, tuple(kept.values()), last)
    behind = Iterations(1, _renamed(after, kept | wanted), (), (), (), last)
    ends = dict(zip(loop.results, (wanted[name] for name in loop.updates), strict=True))
    stages = [step for step in rest if isinstance(step, Stage)]
    new = {
        name: replace(program.values[old], name=name)
        for old, name in chain(kept.items(), wanted.items())
    }
    values = {**program.values, **new}
    return values, (first, recurrence, behind, *_renamed(stages, ends))


def _renamed(stages: Iterable[Stage], names: Mapping[str, str]) -> tuple[Stage, ...]:
    def node(old: Node) -> Node:
        inputs = tuple(name and names.get(name, name) for name in old.inputs)
        return replace(old, inputs=inputs, outputs=tuple(names.get(x, x) for x in old.outputs))

    return tuple(
        Stage(tuple(map(node, stage.rows)), tuple(map(node, stage.tiles))) for stage in stages
    )
