"""Greedy steps that the machine runs alone, some of them in a run.

The machine leaves the states behind the last step of a run. Those behind an earlier step are made
again: the same steps from the states in front of the run have the same bits.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.backends.decoding import Drawn
from mmfree_compiler.backends.interface import Batch, Indices
from mmfree_compiler.backends.numpy_states import NumpyStates

Ids = NDArray[np.int64]
# Steps of N sequences in one run, of which the first reads a batch: the likeliest tokens (steps, N)
# and the logits (steps, N, V). Advances the states.
RunSteps = Callable[[Batch, NumpyStates, int], tuple[Ids, NDArray[np.float32]]]


@dataclass
class Burst:
    """The steps of a run: the tokens that each drew, the first `taken` of which the host has.

    `read` (N,) are the ids that the first step read. States are those in front of the run and those
    behind it. `left` is the number of steps that are still to run.
    """

    read: Ids
    before: NumpyStates
    after: NumpyStates
    drawn: list[Drawn]
    left: int
    taken: int = 0


class FpgaDecoding:
    """See backends/decoding.py. Other calls of the launcher run between its runs.

    The states that it was made with stay as they are until it is closed.
    """

    def __init__(
        self, run: RunSteps, most: int, batch: Batch, states: NumpyStates, steps: int
    ) -> None:
        """`most` is the number of steps that a run may have."""
        self._run, self._most, self._states, self._slots = run, most, states, batch.slots.tolist()
        own = states.take(self._slots)
        self._burst = Burst(batch.inputs[0].astype(np.int64), own, own, [], steps)
        self._open = True

    def __iter__(self) -> FpgaDecoding:
        return self

    def __next__(self) -> Drawn:
        burst = self._burst
        if not self._open or (burst.taken == len(burst.drawn) and not burst.left):
            self.close()
            raise StopIteration
        try:
            if burst.taken == len(burst.drawn):
                burst = self._burst = self._next(burst)
        except BaseException:
            self.close()
            raise
        burst.taken += 1
        return burst.drawn[burst.taken - 1]

    def take(self, rows: Indices) -> NumpyStates:
        burst = self._burst
        if burst.taken == len(burst.drawn):
            return burst.after.take(rows)
        states = burst.before.take(rows)
        if burst.taken:
            self._run(_batch(burst.read[rows]), states, burst.taken)
        return states

    def close(self) -> None:
        if self._open:
            self._states.put(self._slots, self.take(slice(None)))
            self._open = False

    def _next(self, last: Burst) -> Burst:
        """The run behind the last one."""
        steps, states = min(self._most, last.left), last.after.take(slice(None))
        read = last.drawn[-1].ids if last.drawn else last.read
        ids, logits = self._run(_batch(read), states, steps)
        drawn = [Drawn.of(*step) for step in zip(ids, logits, strict=True)]
        return Burst(read, last.after, states, drawn, last.left - steps)


def _batch(ids: Ids) -> Batch:
    """A token of each sequence. The machine does not read positions."""
    index = np.arange(len(ids))
    return Batch((ids,), index.astype(np.int32), np.zeros(len(ids), np.int64), index)
