"""Steps that feed themselves, a few of them ahead of the host.

A sequence has RING state rows for as long as it decodes: step t reads row t % RING and leaves row
(t + 1) % RING. So the states after each token that the host may have taken last are still there,
and closing only says which of the rows is the sequence's from now on.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.backends.cuda import lanes
from mmfree_compiler.backends.cuda.lanes import AHEAD, RING
from mmfree_compiler.backends.cuda.run.calls import Call
from mmfree_compiler.backends.cuda.run.lane_memory import LaneMemory, LanePool
from mmfree_compiler.backends.cuda.run.states import CudaStates
from mmfree_compiler.backends.decoding import Choices, Drawn
from mmfree_compiler.backends.interface import Batch, Indices


class CudaDecoding:
    """See backends/decoding.py. Other calls of the launcher run between its steps."""

    def __init__(
        self, pool: LanePool, batch: Batch, choices: Choices, states: CudaStates, steps: int
    ) -> None:
        self._pool, self._states, self._slots, self._steps = pool, states, batch.slots, steps
        self._issued = self._taken = 0
        self._memory: LaneMemory | None = None
        count = len(batch.slots)
        with pool.arena.using():
            self._spare = CudaStates(pool.arena, pool.arena.acquire(count * (RING - 1)))
            own = states.rows[batch.slots][:, None]
            self._rows = np.hstack([own, self._spare.rows.reshape(count, RING - 1)])
            wanted = np.arange(count, dtype=np.int32)
            call = Call(batch.inputs, self._rows[:, 0], self._rows[:, 1], wanted)
            memory = pool.take(call)
            memory.start(call, lanes.chosen_by(choices, batch.positions, self._rows))
            self._memory = memory

    def __iter__(self) -> CudaDecoding:
        return self

    def __next__(self) -> Drawn:
        if self._memory is None or self._taken == self._steps:
            self.close()
            raise StopIteration
        try:
            return self._next(self._memory)
        except BaseException:
            self.close()
            raise

    def __del__(self) -> None:
        self.close()

    def take(self, rows: Indices) -> CudaStates:
        return CudaStates.copied(self._pool.arena, self._now[rows])

    def close(self) -> None:
        memory, self._memory = self._memory, None
        if memory is None:
            return
        self._states.rows[self._slots] = self._now
        self._spare.rows = np.delete(self._rows, self._taken % RING, axis=1).reshape(-1)
        self._pool.give(memory)

    @property
    def _now(self) -> NDArray[np.int32]:
        """The rows of the states behind the last step that was taken."""
        return self._rows[:, self._taken % RING]

    def _next(self, memory: LaneMemory) -> Drawn:
        with self._pool.arena.using():
            for number in range(self._issued, min(self._taken + 1 + AHEAD, self._steps)):
                # Counted first: an interrupt may make it too many, which closing allows for.
                self._issued = number + 1
                memory.step(number)
        found = memory.drawn(self._taken)[: len(self._rows)]
        self._taken += 1
        return _drawn(found)


@np.errstate(invalid="ignore", divide="ignore")  # of damaged logits, which `peaks` tell of
def _drawn(found: NDArray[np.void]) -> Drawn:
    relative = found["logit"].astype(np.float64) - found["peak"]
    return Drawn(found["id"].astype(np.int64), relative - np.log(found["total"]), found["peak"])
