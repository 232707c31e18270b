"""Figures of a model on a board, from the cycle model of its programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from mmfree_compiler.backends.fpga.facts import ADVANCE, DECODE, FORWARD, Facts
from mmfree_compiler.backends.fpga.isa.opcode import Instruction
from mmfree_compiler.backends.fpga.resources import uses
from mmfree_compiler.backends.fpga.strides import LINE
from mmfree_compiler.backends.fpga.timing.durations import Durations
from mmfree_compiler.backends.fpga.timing.intervals import WORK, intervals
from mmfree_compiler.backends.fpga.timing.model import Timeline, simulate
from mmfree_compiler.backends.projection import Figure, Projection

# What others have said of published shapes; docs/targets/fpga.md has the sources.
PEERS = {
    "1.3B": (Figure("the paper's estimate (arXiv 2406.02528)", 42.0, "ms per token", "projected"),),
    "370M": (Figure("matmulfree_KRIA on a KRIA board", 30.6, "tokens/s", "measured"),),
}


@dataclass(frozen=True)
class Model:
    """The programs of a model; `weight_lines` of the stream are ternary weights."""

    facts: Facts
    code: Mapping[str, Sequence[Instruction]]
    weight_lines: int


def project(model: Model, shape: str = "") -> Projection:
    """Figures of one token of one sequence, after others, and of a prompt."""
    facts, token = model.facts, timed_token(model.facts, model.code)
    figures = (*_token(model, token), *_prompt(model), *_chip(facts), *PEERS.get(shape, ()))
    units = intervals(token.timeline, token.first, token.timeline.cycles)
    return Projection(facts.board.title, figures, units, frozenset((WORK,)))


@dataclass(frozen=True)
class TimedToken:
    """A run of the program `role` whose last token begins at cycle `first`.

    `lines` are all that DRAM delivers or stores for a token.
    """

    role: str
    timeline: Timeline
    first: int
    lines: int

    @property
    def cycles(self) -> int:
        """Those of the last token."""
        return self.timeline.cycles - self.first


def timed_token(facts: Facts, code: Mapping[str, Sequence[Instruction]]) -> TimedToken:
    """One token after others, or alone where the machine does not choose tokens."""
    role = DECODE if DECODE in code else FORWARD
    run = partial(simulate, code[role], facts.board, facts.layout, (1, 1, 1, 1))
    alone = run(1)
    lines = alone.streamed + alone.moved
    if role == DECODE:
        return TimedToken(role, run(2), alone.cycles, lines)
    return TimedToken(role, alone, 0, lines)


def _token(model: Model, token: TimedToken) -> Iterator[Figure]:
    cycles = token.cycles
    board = model.facts.board
    durations = Durations(board, model.facts.layout, (1, 1, 1, 1))
    seconds = cycles / (board.clock_mhz * 1e6)
    bound = model.weight_lines / durations.lines_per_cycle / (board.clock_mhz * 1e6)
    yield Figure("cycles", cycles, "per token", "projected")
    yield Figure("time", 1e3 * seconds, "ms per token", "projected")
    yield Figure("speed", 1 / seconds, "tokens/s", "projected")
    yield Figure("ternary weights", model.weight_lines * LINE / 1e6, "MB per token", "derived")
    yield Figure("reading them alone", 1e3 * bound, "ms per token", "derived")
    yield Figure("share of that bound", 100 * bound / seconds, "%", "projected")
    yield Figure(
        "memory in use", 100 * token.lines / durations.lines_per_cycle / cycles, "%", "projected"
    )
    if board.watts:
        yield Figure("energy", 1 / seconds / board.watts, "tokens per joule", "projected")


def _prompt(model: Model) -> Iterator[Figure]:
    facts = model.facts
    counts = (1, facts.tokens, 1, 1)
    # Only the end of a prompt has logits.
    code = model.code.get(ADVANCE, model.code[FORWARD])
    run = simulate(code, facts.board, facts.layout, counts)
    speed = facts.tokens * facts.board.clock_mhz * 1e6 / run.cycles
    yield Figure(f"prompt, {facts.tokens} tokens at once", speed, "tokens/s", "projected")


def _chip(facts: Facts) -> Iterator[Figure]:
    for use in uses(facts.board, facts.density):
        yield Figure(f"{use.name} of the chip", 100 * use.share, "%", "derived")
