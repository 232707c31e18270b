"""The launches of a plan, with the pointers of a launcher's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from mmfree_compiler.backends.cuda.facts import Argument, Launch, Over, Plan
from mmfree_compiler.backends.cuda.run.calls import INDICES
from mmfree_compiler.backends.cuda.run.executor import Executor, Memory, Pointer, Shared
from mmfree_compiler.backends.cuda.strides import power_of_two


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


class Runner:
    """Runs a plan. Its launches are recorded at their first use: they take longer than kernels."""

    def __init__(self, executor: Executor, plan: Plan, places: Places) -> None:
        self._executor, self._plan, self._places = executor, plan, places
        self._recorded: dict[tuple[int, ...], Callable[[], None]] = {}

    def __call__(self, counts: Mapping[Over, int]) -> None:
        """Run it for some numbers of tokens; programs that have none end at once."""
        most = self._most(counts)
        key = tuple(most.values())
        if key not in self._recorded:
            self._recorded[key] = self._executor.recorded(
                lambda: launch(self._executor, each_launch(self._plan), self._places, most)
            )
        self._recorded[key]()

    def _most(self, counts: Mapping[Over, int]) -> dict[Over, int]:
        """Counts that few recordings serve: powers of two."""
        most = self._plan.tokens
        return {over: min(most, power_of_two(count)) for over, count in counts.items()}


def step(
    executor: Executor, plan: Plan, sampling: Sequence[Launch], places: Places, sequences: int
) -> Callable[[], None]:
    """Runs a plan for a token of each sequence, and then the launches that choose the next."""
    launches = [*each_launch(plan), *((launch, 0) for launch in sampling)]
    return executor.recorded(lambda: launch(executor, launches, places, _each(sequences)))


def _each(count: int) -> Mapping[Over, int]:
    return dict.fromkeys(("tokens", "wanted", "sequences"), count)


def launch(
    executor: Executor,
    launches: Iterable[tuple[Launch, int]],
    places: Places,
    counts: Mapping[Over, int],
) -> None:
    """Start launches, each in an iteration of its loop, for some numbers of tokens."""
    for each, iteration in launches:
        if count := counts[each.over]:
            pointers = [places.pointer(argument, iteration) for argument in each.arguments]
            executor.launch(each.kernel, (each.columns, -(-count // each.per)), pointers)


def each_launch(plan: Plan) -> Iterator[tuple[Launch, int]]:
    """The launches of a plan in order, each with the iteration of its loop."""
    for step in plan.steps:
        for iteration in range(step.count):
            yield from ((launch, iteration) for launch in step.launches)
