"""The memory of sequences that decode together, and the launches of their steps."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.backends.cuda import lanes
from mmfree_compiler.backends.cuda.facts import Facts, Plan
from mmfree_compiler.backends.cuda.run.calls import INDEX_BYTES, Call
from mmfree_compiler.backends.cuda.run.plans import Places, step
from mmfree_compiler.backends.cuda.run.states import StateArena
from mmfree_compiler.backends.cuda.strides import power_of_two

_ID_BYTES = 8


class LaneMemory:
    """For up to `capacity` sequences; `places` are the memory that all calls of a launcher share.

    Inputs and indices are its own, so that other calls may run between two steps. Its methods are
    called in `arena.using()`, all but `drawn`.
    """

    def __init__(
        self, arena: StateArena, facts: Facts, plan: Plan, places: Places, capacity: int, width: int
    ) -> None:
        executor = arena.executor
        sizes = {
            "choices": capacity * lanes.choices(width).itemsize,
            "work": capacity * lanes.work(width).itemsize,
            "indices": INDEX_BYTES,
            "input": capacity * _ID_BYTES,
        }
        self._own = dict(zip(sizes, executor.allocate(**sizes), strict=True))
        self._drawn = executor.share(capacity * lanes.RING * lanes.DRAWN.itemsize)
        self._records = self._drawn.array.view(lanes.DRAWN).reshape(capacity, lanes.RING)
        self._marks = [executor.mark() for _ in range(lanes.RING)]
        self._arena, self._facts, self._plan, self._places = arena, facts, plan, places
        self.capacity, self._launch, self._recorded_at = capacity, _nothing, -1

    def start(self, call: Call, choices: NDArray[Any]) -> None:
        """Prepare the first step, which reads a token of each sequence."""
        self._own["choices"].upload(choices.view(np.uint8))
        self._own["indices"].upload(call.indices())
        self._own["input"].upload(np.ascontiguousarray(call.inputs[0]))

    def step(self, number: int) -> None:
        """Put the step `number`, counted from the start, behind what was launched before."""
        if self._recorded_at != self._arena.moves:
            self._recorded_at, self._launch = self._arena.moves, self._recorded()
        self._launch()
        self._marks[number % lanes.RING].set()

    def drawn(self, number: int) -> NDArray[Any]:
        """The tokens (capacity,) of one of the last RING steps, once it has run."""
        with self._arena.executor.current():
            self._marks[number % lanes.RING].wait()
        return self._records[:, number % lanes.RING].copy()

    def _recorded(self) -> Callable[[], None]:
        memory = {
            **self._places.memory,
            **self._own,
            "states": self._arena.memory,
            "drawn": self._drawn,
        }
        places = replace(self._places, memory=memory)
        executor, sampling = self._arena.executor, self._facts.sampling
        return step(executor, self._plan, sampling, places, self.capacity)


def _nothing() -> None:
    """Takes the place of launches that are not recorded yet."""


class LanePool:
    """LaneMemory that is not in use, to be used again with the launches that it recorded."""

    def __init__(self, arena: StateArena, facts: Facts, places: Places, width: int) -> None:
        self.arena = arena
        self._facts, self._places, self._width = facts, places, width
        self._idle: defaultdict[int, deque[LaneMemory]] = defaultdict(deque)

    def take(self, call: Call) -> LaneMemory:
        """Memory for the sequences of a call. Raises TargetError when the device has too little."""
        plan = next(plan for plan in self._facts.plans if call.fits(plan))
        # Powers of two: batches that become smaller find memory of their size again.
        capacity = min(plan.tokens, power_of_two(len(call.rows)))
        idle = self._idle[capacity]
        if idle:
            return idle.popleft()
        return LaneMemory(self.arena, self._facts, plan, self._places, capacity, self._width)

    def give(self, memory: LaneMemory) -> None:
        """Memory that is not used any more, though steps may still run in it.

        It takes no lock: the garbage collector may call it.
        """
        self._idle[memory.capacity].append(memory)
