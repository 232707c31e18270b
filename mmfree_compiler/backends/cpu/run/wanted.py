"""Reordering a batch to end with its wanted tokens: kernels make outputs of last tokens only.

Tokens of different sequences may be reordered, tokens of one sequence may not.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.backends.interface import Batch

Found = NDArray[np.intp] | None


def wanted_last(batch: Batch) -> tuple[Batch, int, Found]:
    """The batch with its wanted tokens last, the index of the first of them, and None.

    If that would reorder a sequence, the batch is unchanged and outputs start at the first wanted
    token. The last result then has the indices of the wanted outputs, instead of None for all.
    """
    total, wanted = len(batch.slots), batch.wanted
    first = total - len(wanted)
    if first == 0 or first == total or wanted[0] == first:
        return batch, first, None
    last = np.zeros(total, np.bool_)
    last[wanted] = True
    order = np.argsort(last, kind="stable")
    if not _keeps_time(batch.slots[order], batch.positions[order]):
        return batch, int(wanted[0]), wanted - wanted[0]
    inputs = tuple(rows[order] for rows in batch.inputs)
    moved = replace(
        batch, inputs=inputs, slots=batch.slots[order], positions=batch.positions[order]
    )
    return moved, first, None


def _keeps_time(slots: NDArray[np.int32], positions: NDArray[np.int64]) -> bool:
    """Whether the tokens of each slot are in the order of their positions."""
    by_slot = np.argsort(slots, kind="stable")
    same = np.diff(slots[by_slot]) == 0
    return bool((np.diff(positions[by_slot])[same] > 0).all())
