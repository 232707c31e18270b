"""What the instructions of a compiled library are for: products, epilogues or rows, by stage.

The code of a stage is one function's: loops over rows, a barrier, loops over tiles of columns, a
barrier. In a tile's loop are the loops of its products, or calls of a function that has them; the
rest of it is the epilogue: scales, gates, the recurrence, residuals. LLVM keeps stages in order.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Literal

Part = Literal["products", "epilogue", "rows"]

# By the instructions that multiply codes, how many loops are inside a tile's around them: sums of
# int16 have to be widened after some blocks.
_LOOPS = {"vpmaddubsw": 2, "vpdpbusd": 1, "tdpbsud": 1}
_LINE = re.compile(r"^ *(?P<at>[0-9a-f]+):\s+(?P<name>\S+) *(?P<operands>.*)$", re.MULTILINE)
_TARGET = re.compile(r"(?:0x)?([0-9a-f]+)\b")


@dataclass(frozen=True)
class Instruction:
    """`target` is where it jumps to or what it calls, if the code says so."""

    at: int
    name: str
    target: int | None = None

    @classmethod
    def all_of(cls, text: str) -> list[Instruction]:
        """Those of what `objdump -d --no-show-raw-insn` printed."""
        return [cls._parse(match) for match in _LINE.finditer(text)]

    @classmethod
    def _parse(cls, match: re.Match[str]) -> Instruction:
        name, target = match["name"], _TARGET.match(match["operands"])
        goes = name.startswith("j") or name == "call"
        return cls(int(match["at"], 16), name, int(target[1], 16) if goes and target else None)


@dataclass(frozen=True)
class Loop:
    """From the target of a jump backwards to the jump."""

    first: int
    last: int

    def __contains__(self, at: int) -> bool:
        return self.first <= at <= self.last

    def is_in(self, other: Loop) -> bool:
        """Whether `other` is around it."""
        return self != other and self.first in other and self.last in other

    @property
    def size(self) -> int:
        return self.last - self.first


class Function:
    """The instructions between two returns or called functions, in order.

    `multiplying` are the addresses of functions that have products and no barriers.
    """

    def __init__(
        self, instructions: list[Instruction], multiplying: Iterable[int] = frozenset()
    ) -> None:
        self.instructions = instructions
        self._multiplying = frozenset(multiplying)

    @property
    def first(self) -> int:
        return self.instructions[0].at

    @property
    def multiplies(self) -> bool:
        """Whether other functions call it for products."""
        return bool(self._dots) and not self._barriers

    def part(self, at: int) -> Part:
        """What the instruction at an address is for."""
        if self.multiplies:
            return "products"
        around = sorted((loop for loop in self._heights if at in loop), key=lambda loop: loop.size)
        height = next((self._heights[x] for x in around if self._heights[x] is not None), None)
        if height is None or height > self._depth:
            return "rows"
        return "epilogue" if height == self._depth else "products"

    def stage(self, at: int) -> int:
        """The number of stages before the one that an address belongs to."""
        ends = [end for start, end in pairwise((0, *self._barriers)) if self._has_tile(start, end)]
        return bisect_right(ends, at)

    def _has_tile(self, start: int, end: int) -> bool:
        tiles = (loop for loop, height in self._heights.items() if height == self._depth)
        return any(start < loop.first < end for loop in tiles)

    @cached_property
    def _depth(self) -> int:
        """The height of a tile's loop."""
        return max((_LOOPS[x.name] for x in self._dots), default=1)

    @cached_property
    def _dots(self) -> list[Instruction]:
        return [x for x in self.instructions if x.name in _LOOPS]

    @cached_property
    def _barriers(self) -> list[int]:
        """The runtime is called by a pointer."""
        return [x.at for x in self.instructions if x.name == "call" and x.target is None]

    @cached_property
    def _heights(self) -> dict[Loop, int | None]:
        """How many loops are between each and its products; None without any."""
        heights: dict[Loop, int | None] = {}
        for loop in sorted(self._loops, key=lambda loop: loop.size):
            inside = [other for other in heights if other.is_in(loop)]
            inner = [x for x in inside if not any(x.is_in(other) for other in inside)]
            found = [height + 1 for x in inner if (height := heights[x]) is not None]
            own = [x for x in self._products if x in loop and not any(x in y for y in inner)]
            found += [self._products[x] for x in own]
            heights[loop] = min(found, default=None)
        return heights

    @cached_property
    def _products(self) -> dict[int, int]:
        """Where it multiplies, or calls what does, and the height of the loop around that."""
        calls = (x for x in self.instructions if x.name == "call")
        found = {x.at: self._depth for x in calls if x.target in self._multiplying}
        return found | {x.at: 0 for x in self._dots}

    @cached_property
    def _loops(self) -> set[Loop]:
        jumps = (x for x in self.instructions if x.name.startswith("j") and x.target is not None)
        backwards = ((x.target, x.at) for x in jumps if x.target is not None and x.target <= x.at)
        return {Loop(first, last) for first, last in backwards if first >= self.first}


def functions(text: str) -> list[Function]:
    """The functions of what `objdump -d --no-show-raw-insn` printed, in order."""
    instructions = Instruction.all_of(text)
    starts = {x.target for x in instructions if x.name == "call"}
    starts |= {b.at for a, b in pairwise(instructions) if a.name == "ret"}
    parts: list[list[Instruction]] = []
    for x in instructions:
        if not parts or x.at in starts:
            parts.append([])
        parts[-1].append(x)
    found = [Function(part) for part in parts]
    multiplying = [function.first for function in found if function.multiplies]
    return [Function(function.instructions, multiplying) for function in found]


def return_addresses(found: list[Function]) -> dict[int, set[int]]:
    """By the address of a function: where it returns to."""
    instructions = [x for function in found for x in function.instructions]
    returns: dict[int, set[int]] = defaultdict(set)
    for x, following in pairwise(instructions):
        if x.name == "call" and x.target is not None:
            returns[x.target].add(following.at)
    return returns
