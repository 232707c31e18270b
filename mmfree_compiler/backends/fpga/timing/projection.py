"""Figures of a model on a board, from the cycle model of its programs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from mmfree_compiler.backends.fpga.facts import ADVANCE, DECODE, FORWARD, Facts
from mmfree_compiler.backends.fpga.isa.opcode import Instruction
from mmfree_compiler.backends.fpga.resources import uses
from mmfree_compiler.backends.fpga.strides import LINE
from mmfree_compiler.backends.fpga.timing.durations import Durations
from mmfree_compiler.backends.fpga.timing.intervals import WORK, intervals
from mmfree_compiler.backends.fpga.timing.model import simulate
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
    facts = model.facts
    code = model.code.get(DECODE, model.code[FORWARD])
    counts = (1, 1, 1, 1)
    timelines = [simulate(code, facts.board, facts.layout, counts, steps) for steps in (1, 2)]
    ends = [timeline.cycles for timeline in timelines]
    # A program without steps has no token after others.
    first, last = ends if DECODE in model.code else (0, ends[0])
    cycles = last - first
    lines = timelines[0].streamed + timelines[0].moved
    figures = (*_token(model, cycles, lines), *_prompt(model), *_chip(facts), *PEERS.get(shape, ()))
    timeline = timelines[1] if DECODE in model.code else timelines[0]
    units = intervals(timeline, first, last)
    return Projection(facts.board.title, figures, units, frozenset((WORK,)))


def _token(model: Model, cycles: int, lines: int) -> Iterator[Figure]:
    """`lines` are all that DRAM delivers or stores for a token."""
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
        "memory in use", 100 * lines / durations.lines_per_cycle / cycles, "%", "projected"
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
