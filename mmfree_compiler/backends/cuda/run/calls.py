"""Cutting a batch into calls that a plan takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.backends.cuda.facts import Over, Plan, Space
from mmfree_compiler.backends.cuda.strides import CHUNK
from mmfree_compiler.backends.interface import Array, Batch

Ints = NDArray[np.int32]

# Where each array of indices begins in a call's: int32 elements. Counts come first.
INDICES: dict[Space, int] = {
    "counts": 0,
    "slots": 8,
    "targets": 8 + CHUNK,
    "wanted": 8 + 2 * CHUNK,
    "order": 8 + 3 * CHUNK,
    "starts": 8 + 4 * CHUNK,
}
INDEX_BYTES = 4 * (INDICES["starts"] + CHUNK + 8)


@dataclass(frozen=True)
class Call:
    """At most CHUNK tokens; `wanted` are indices of these tokens.

    `rows` are the state rows that they continue, `targets` those that they leave.
    """

    inputs: tuple[Array, ...]
    rows: Ints
    targets: Ints
    wanted: Ints

    @cached_property
    def _order(self) -> Ints:
        """The tokens, those of a sequence together and in order."""
        return np.argsort(self.rows, kind="stable").astype(np.int32)

    @cached_property
    def _starts(self) -> Ints:
        """Where the tokens of each sequence begin in `_order`."""
        ordered = self.rows[self._order]
        return np.flatnonzero(np.diff(ordered, prepend=-1)).astype(np.int32)

    @property
    def counts(self) -> dict[Over, int]:
        """How many there are of what a launch may be over."""
        return {
            "tokens": len(self.rows),
            "wanted": len(self.wanted),
            "sequences": len(self._starts),
        }

    def fits(self, plan: Plan) -> bool:
        """Whether a plan takes its tokens."""
        alone = len(self._starts) == len(self.rows)
        return len(self.rows) <= plan.tokens and (alone or plan.together)

    def indices(self) -> Ints:
        """All arrays of indices; sequences that there are not have no tokens."""
        packed = np.zeros(INDEX_BYTES // 4, np.int32)
        packed[INDICES["starts"] :] = len(self.rows)
        arrays: dict[Space, Ints] = {
            "counts": np.array([len(self.rows), len(self.wanted)], np.int32),
            "slots": self.rows,
            "targets": self.targets,
            "wanted": self.wanted,
            "order": self._order,
            "starts": self._starts,
        }
        for name, array in arrays.items():
            packed[INDICES[name] : INDICES[name] + len(array)] = array
        return packed


def calls(batch: Batch, rows: Ints) -> Iterator[Call]:
    """Calls in the order of the tokens, whose state rows are `rows`; at least one."""
    total = len(rows)
    for start in range(0, max(total, 1), CHUNK):
        stop = start + CHUNK
        wanted = batch.wanted[(batch.wanted >= start) & (batch.wanted < stop)] - start
        inputs = tuple(port[start:stop] for port in batch.inputs)
        here = rows[start:stop]
        yield Call(inputs, here, here, wanted.astype(np.int32))
