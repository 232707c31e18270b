"""The launches of a plan, with the pointers of a launcher's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mmfree_compiler.backends.cuda.facts import Argument, Launch, Over, Plan
from mmfree_compiler.backends.cuda.run.calls import INDICES
from mmfree_compiler.backends.cuda.run.executor import Executor, Memory, Pointer, Shared

# Plans for few tokens are recorded: their launches take longer than their kernels.
MOST_RECORDED = 4096  # tokens


@dataclass(frozen=True)
class Places:
    """A launcher's memory by name, and where the rows of each port begin in "input", "output"."""

    memory: Mapping[str, Memory | Shared]
    ports: Mapping[str, list[int]]

    def pointer(self, argument: Argument, iteration: int) -> Pointer:
        """Where an argument points in an iteration of its loop."""
        space = argument.space
        if space in INDICES:
            return Pointer(self.memory["indices"], 4 * INDICES[space] + argument.offset)
        if space in self.ports:
            return Pointer(self.memory[space], self.ports[space][argument.offset])
        return Pointer(self.memory[space], argument.offset + iteration * argument.stride)


def runner(executor: Executor, plan: Plan, places: Places) -> Callable[[Mapping[Over, int]], None]:
    """Runs a plan for some numbers of tokens."""
    if plan.tokens > MOST_RECORDED:
        return lambda counts: _launch(executor, _launches(plan), places, counts)
    replay = executor.recorded(
        lambda: _launch(executor, _launches(plan), places, _each(plan.tokens))
    )
    return lambda _: replay()


def step(
    executor: Executor, plan: Plan, sampling: Sequence[Launch], places: Places, sequences: int
) -> Callable[[], None]:
    """Runs a plan for a token of each sequence, and then the launches that choose the next."""
    launches = [*_launches(plan), *((launch, 0) for launch in sampling)]
    return executor.recorded(lambda: _launch(executor, launches, places, _each(sequences)))


def _each(count: int) -> Mapping[Over, int]:
    return dict.fromkeys(("tokens", "wanted", "sequences"), count)


def _launch(
    executor: Executor,
    launches: Iterable[tuple[Launch, int]],
    places: Places,
    counts: Mapping[Over, int],
) -> None:
    for launch, iteration in launches:
        if count := counts[launch.over]:
            pointers = [places.pointer(argument, iteration) for argument in launch.arguments]
            executor.launch(launch.kernel, (launch.columns, -(-count // launch.per)), pointers)


def _launches(plan: Plan) -> Iterator[tuple[Launch, int]]:
    for step in plan.steps:
        for iteration in range(step.count):
            yield from ((launch, iteration) for launch in step.launches)
