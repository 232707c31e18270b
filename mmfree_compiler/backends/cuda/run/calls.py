"""Cutting a batch into calls that a plan takes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.backends.cuda.facts import Over, Plan, Space
from mmfree_compiler.backends.cuda.strides import CHUNK, OUTPUTS
from mmfree_compiler.backends.device_interface import DeviceRows
from mmfree_compiler.backends.interface import Array, Batch

Ints = NDArray[np.int32]
Inputs = tuple[Array | DeviceRows, ...]  # of each port

# Where each array of indices begins in a call's: int32 elements. Counts come first.
INDICES: dict[Space, int] = {
    "counts": 0,
    "slots": 8,
    "targets": 8 + CHUNK,
    "wanted": 8 + 2 * CHUNK,
    "starts": 8 + 3 * CHUNK,
}
INDEX_BYTES = 4 * (INDICES["starts"] + CHUNK + 8)


@dataclass(frozen=True)
class Call:
    """At most CHUNK tokens, those of a sequence side by side; `wanted` are indices of them.

    `rows` are the state rows that they continue, `targets` those that they leave.
    """

    inputs: Inputs
    rows: Ints
    targets: Ints
    wanted: Ints

    @cached_property
    def _starts(self) -> Ints:
        """Where the tokens of each sequence begin."""
        return _starts(self.rows)

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
            "starts": self._starts,
        }
        for name, array in arrays.items():
            packed[INDICES[name] : INDICES[name] + len(array)] = array
        return packed


def calls(batch: Batch, inputs: Inputs, rows: Ints, chunk: int) -> Iterator[Call]:
    """Calls of at most `chunk` tokens, in their order; at least one.

    `rows` are the state rows of the tokens.
    """
    start, stop = 0, -1
    while stop < len(rows):
        stop = _end(batch, start, min(chunk, CHUNK))
        wanted = batch.wanted[(batch.wanted >= start) & (batch.wanted < stop)] - start
        here = tuple(port[start:stop] for port in inputs)
        yield _call(here, rows[start:stop], wanted)
        start = stop


def _end(batch: Batch, start: int, chunk: int) -> int:
    """Where the call ends that begins at token `start`."""
    later = batch.wanted[batch.wanted >= start]
    first_beyond = [int(token) for token in later[OUTPUTS : OUTPUTS + 1]]
    return min([start + chunk, *first_beyond])


def _call(inputs: Inputs, rows: Ints, wanted: NDArray[np.intp]) -> Call:
    """Tokens in their order, or sorted by sequence where those of several are mixed."""
    starts = _starts(rows)
    if len(starts) > 1 and len(starts) > len(np.unique(rows[starts])):
        order = np.argsort(rows, kind="stable")
        inputs, rows = tuple(port[order] for port in inputs), rows[order]
        wanted = np.argsort(order)[wanted]
    return Call(inputs, rows, rows, wanted.astype(np.int32))


def _starts(rows: Ints) -> Ints:
    """Where a token is of another sequence than the one before it."""
    changes = np.ones(len(rows), bool)
    np.not_equal(rows[1:], rows[:-1], out=changes[1:])
    return np.flatnonzero(changes).astype(np.int32)
