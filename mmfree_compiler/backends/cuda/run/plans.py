"""The launches of a plan, with the pointers of a launcher's memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from mmfree_compiler.backends.cuda.facts import Argument, Launch, Over, Plan
from mmfree_compiler.backends.cuda.run.calls import INDICES
from mmfree_compiler.backends.cuda.run.executor import Executor, Memory, Pointer

# Plans for few tokens are recorded: their launches take longer than their kernels.
MOST_RECORDED = 4096  # tokens


@dataclass(frozen=True)
class Places:
    """A launcher's memory by name, and where the rows of each port begin in "input", "output"."""

    memory: Mapping[str, Memory]
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
        return lambda counts: _launch(executor, plan, places, counts)
    most: dict[Over, int] = dict.fromkeys(("tokens", "wanted", "sequences"), plan.tokens)
    replay = executor.recorded(lambda: _launch(executor, plan, places, most))
    return lambda _: replay()


def _launch(executor: Executor, plan: Plan, places: Places, counts: Mapping[Over, int]) -> None:
    for launch, iteration in _launches(plan):
        if count := counts[launch.over]:
            pointers = [places.pointer(argument, iteration) for argument in launch.arguments]
            executor.launch(launch.kernel, (launch.columns, -(-count // launch.per)), pointers)


def _launches(plan: Plan) -> Iterator[tuple[Launch, int]]:
    for step in plan.steps:
        for iteration in range(step.count):
            yield from ((launch, iteration) for launch in step.launches)
