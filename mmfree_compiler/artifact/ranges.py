"""Ranges of weights.bin: what two neighbouring targets store alike, they read from one place.

The constants of a target are one range of weights.bin. Those that the next target stores alike come
last in it, and first in the range of the next, so that the two ranges overlap.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

import numpy as np

from mmfree_compiler.artifact.entries import TensorEntry
from mmfree_compiler.artifact.weights import ALIGNMENT, Array, Bytes, aligned_empty
from mmfree_compiler.program import Constant

Tensors = Mapping[str, TensorEntry]


def ordered(targets: Sequence[Mapping[str, Constant]]) -> list[dict[str, Constant]]:
    """The constants of each target, with those at the ends that a neighbour stores alike.

    A constant is shared with one neighbour at most.
    """
    heads: list[list[str]] = [[]]
    tails: list[list[str]] = []
    for ours, theirs in pairwise(targets):
        free = (name for name in ours if name not in heads[-1])
        shared = [n for n in free if n in theirs and _are_alike(ours[n], theirs[n])]
        tails.append(shared)
        heads.append(shared)
    ends = zip(targets, heads, [*tails, []], strict=True)
    return [_between(own, head, tail) for own, head, tail in ends]


def _between(own: Mapping[str, Constant], head: list[str], tail: list[str]) -> dict[str, Constant]:
    rest = [name for name in own if name not in {*head, *tail}]
    return {name: own[name] for name in (*head, *rest, *tail)}


def _are_alike(ours: Constant, theirs: Constant) -> bool:
    """Whether both are stored as the same bytes, which mean the same."""
    a, b = ((c.dtype, c.shape, c.role, c.layout.name, len(c.parts)) for c in (ours, theirs))
    return a == b and all(map(_are_equal, ours.parts, theirs.parts))


def _are_equal(a: Array, b: Array) -> bool:
    return a is b or np.array_equal(_bytes(a), _bytes(b))


def _bytes(part: Array) -> Bytes:
    return np.ascontiguousarray(part).reshape(-1).view(np.uint8)


def joined(targets: Sequence[tuple[Bytes, Tensors]]) -> tuple[Bytes, list[int]]:
    """weights.bin of targets with these constants, and where the range of each begins in it."""
    if len(targets) == 1:
        return targets[0][0], [0]  # not copied: it may be large
    starts = [0]
    for ours, theirs in pairwise(targets):
        starts.append(starts[-1] + _next_start(*ours, *theirs))
    placed = list(zip(starts, (weights for weights, _ in targets), strict=True))
    whole = aligned_empty(max(start + weights.size for start, weights in placed), np.uint8)
    whole[:] = 0  # the gaps
    for start, weights in placed:
        whole[start : start + weights.size] = weights
    return whole, starts


def _next_start(ours: Bytes, tensors: Tensors, theirs: Bytes, their_tensors: Tensors) -> int:
    """The first place in `ours` from where to its end it has the first constants of `theirs`."""
    ends = {theirs.size, *(entry.offset for entry in their_tensors.values())} - {0}
    for start in sorted(entry.offset for entry in tensors.values()):
        common = ours.size - start
        if common in ends and np.array_equal(ours[start:], theirs[:common]):
            return start
    return -(-ours.size // ALIGNMENT) * ALIGNMENT
