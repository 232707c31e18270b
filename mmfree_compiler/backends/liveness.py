"""Liveness of values, and one memory for those that are never needed at once.

Time is counted in moments: what runs between two barriers, in any order. Values that one moment
needs are all needed at once.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations, product

import networkx as nx

from mmfree_compiler.program import Loop, Program, Step, stages_of


@dataclass(frozen=True)
class Life:
    """The first and the last moment that needs a value, or others in its place.

    `before`: the lives of what was in that place earlier, and is not needed between them.
    """

    first: int
    last: int
    before: tuple[Life, ...] = ()

    def meets(self, other: Life) -> bool:
        """Whether both are needed at once."""
        pairs = product((self, *self.before), (other, *other.before))
        return any(a.first <= b.last and b.first <= a.last for a, b in pairs)


def roots(program: Program) -> dict[str, str]:
    """The value in whose place each one is: its own, but for what loops carry.

    An update overwrites what it updates; a loop may start from the result of another.
    """
    found = {name: name for name in program.values}
    for step in program.body:
        if isinstance(step, Loop):
            for (initial, inside), *others in zip(
                step.carried, step.updates, step.results, strict=True
            ):
                found |= dict.fromkeys((inside, *others), found[initial])
    return found


def lives(
    program: Program,
    needed: Sequence[Sequence[Collection[str]]],
    places: Mapping[str, str] | None = None,
) -> dict[str, Life]:
    """The lives of values, by the value in whose place each is: `places`, or their roots.

    `needed` are the values that each moment reads or makes, for each step of the body. What a loop
    carries, and what its iterations read from outside, is needed throughout the loop. A place
    begins another life in a step that makes all that it needs there.
    """
    places = roots(program) if places is None else places
    found: dict[str, Life] = {}
    end = 0
    for step, each in zip(program.body, needed, strict=True):
        start, end = end, end + len(each)
        moments: dict[str, list[int]] = {}
        for moment, names in enumerate(each, start):
            for name in names:
                moments.setdefault(places[name], []).append(moment)
        outside = set(_outside(step, each))
        for name in outside if isinstance(step, Loop) else ():
            moments.setdefault(places[name], []).extend((start, end - 1))
        old = {places[name] for name in outside}
        found |= {at: _after(found.get(at), here, at in old) for at, here in moments.items()}
    return found


def _after(life: Life | None, moments: Collection[int], goes_on: bool) -> Life:
    """The life of a place that is also needed in some later moments."""
    if life is None:
        return Life(min(moments), max(moments))
    if goes_on:
        return replace(life, last=max(moments))
    return Life(min(moments), max(moments), (*life.before, replace(life, before=())))


def _outside(step: Step, needed: Iterable[Collection[str]]) -> Iterator[str]:
    """What a step needs and does not make: every iteration finds it as the one before it did."""
    stages = stages_of(step)
    if isinstance(step, Loop):
        yield from (initial for initial, _ in step.carried)
    made = {name for stage in stages for node in stage.nodes for name in node.outputs}
    yield from (name for names in needed for name in names if name not in made)


def largest_first(sizes: Mapping[str, int]) -> dict[str, int]:
    """In the order in which first_fit wastes little."""
    return dict(sorted(sizes.items(), key=lambda item: -item[1]))


def first_fit(
    sizes: Mapping[str, int], orders: Iterable[Mapping[str, Life]]
) -> tuple[dict[str, int], int]:
    """The offset of each value, the lowest that is free, one by one; and the memory's size.

    `orders` are the lives in each order in which moments may run. Values share memory if they meet
    in none of them.
    """
    graph = nx.Graph()
    graph.add_nodes_from(sizes)
    for order in orders:
        pairs = combinations([name for name in order if name in sizes], 2)
        graph.add_edges_from((a, b) for a, b in pairs if order[a].meets(order[b]))
    offsets: dict[str, int] = {}
    for name, size in sizes.items():
        taken = sorted((offsets[other], sizes[other]) for other in graph[name] if other in offsets)
        offsets[name] = _lowest(size, taken)
    return offsets, max((offsets[name] + sizes[name] for name in offsets), default=0)


def _lowest(size: int, taken: Iterable[tuple[int, int]]) -> int:
    """The lowest offset of `size` free bytes between others: (offset, size), in order."""
    at = 0
    for start, other in taken:
        if start >= at + size:
            break
        at = max(at, start + other)
    return at
