"""Timing a decode step on the GPU: the whole of it, and each of its kernels."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from statistics import median

from mmfree_compiler.backends.cuda.facts import Launch, Over, Plan
from mmfree_compiler.backends.cuda.run.executor import Executor
from mmfree_compiler.backends.cuda.run.plans import Places, launch

ROUNDS = 50  # whose medians count
IN_A_ROW = 20  # steps that follow each other, as in decoding


@dataclass(frozen=True)
class StepTimes:
    """Seconds of a step of `plan`: the `whole`, and those of each launch that the plan has.

    The launches are in order, all iterations of the loop around each together. They run alone: in
    the whole, a kernel may start before the one in front of it has ended.
    """

    plan: Plan
    whole: float
    launches: list[float]


def step_times(
    executor: Executor,
    plan: Plan,
    places: Places,
    counts: Mapping[Over, int],
    step: Callable[[], None],
) -> StepTimes:
    """Of `step`, which starts the launches of a plan. States go on with whatever it makes."""
    places_of = _places_in(plan)
    run = executor.timed(
        [partial(_start, each, n, places, counts) for _, each, n in places_of] + [_nothing]
    )
    run()  # the first one loads the kernels
    rounds = [_together(run(), [number for number, *_ in places_of]) for _ in range(ROUNDS)]
    whole = median(executor.seconds(partial(_repeated, step)) for _ in range(ROUNDS)) / IN_A_ROW
    return StepTimes(plan, whole, [median(seconds) for seconds in zip(*rounds, strict=True)])


def _places_in(plan: Plan) -> list[tuple[int, Launch, int]]:
    """All launches in order: the number of each in the plan, and the iteration of its loop."""
    found, first = [], 0
    for step in plan.steps:
        for n in range(step.count):
            found += [(first + k, each, n) for k, each in enumerate(step.launches)]
        first += len(step.launches)
    return found


def _together(seconds: list[float], numbers: list[int]) -> list[float]:
    """Of each launch of the plan, without what the marks take: the last is nothing but marks."""
    *each, least = seconds
    found = [0.0] * (max(numbers, default=-1) + 1)
    for number, own in zip(numbers, each, strict=True):
        found[number] += max(0.0, own - least)
    return found


def _start(
    each: Launch,
    iteration: int,
    places: Places,
    counts: Mapping[Over, int],
    executor: Executor,
) -> None:
    launch(executor, [(each, iteration)], places, counts)


def _nothing(_: Executor) -> None:
    """No launch."""


def _repeated(step: Callable[[], None]) -> None:
    for _ in range(IN_A_ROW):
        step()
