"""A random module by its number: its source, its features, and inputs for it."""

from __future__ import annotations

import linecache
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from fuzz import layers, oddities
from fuzz.builder import Builder, Lines

WIDTHS = (16, 24, 32, 40)
VOCABULARY = 20
# Leading dimensions of inputs by rank; compiling sees the first ones only.
SHAPES: dict[int, tuple[tuple[int, ...], ...]] = {
    2: ((3,), (1,), (7,), (2,), (12,)),
    3: ((2, 3), (1, 1), (4, 3), (1, 9), (5, 1), (3, 3)),
    4: ((2, 2, 3), (1, 1, 1), (3, 1, 4), (1, 4, 2)),
}


def _mixed(x: Tensor) -> Tensor:
    """Rows of many magnitudes, the first one zero."""
    random = torch.Generator().manual_seed(0)
    x = x * 10 ** (4 * torch.rand(*x.shape[:-1], 1, generator=random) - 2)
    x.view(-1, x.shape[-1])[0] = 0
    return x


# What becomes of normal random rows, for each shape in turn.
MAGNITUDES: tuple[Callable[[Tensor], Tensor], ...] = (
    lambda x: x,
    lambda x: x,
    lambda x: x * 1e-3,
    lambda x: x * 30,
    lambda x: x * 1e-6,
    _mixed,
)


@dataclass(frozen=True)
class Case:
    """A module's source, and the rank and width of its inputs; `ids` says that it takes tokens."""

    number: int
    source: str = field(repr=False)
    features: tuple[str, ...]
    rank: int
    width: int
    inputs: str

    def module(self) -> nn.Module:
        """A new module, in inference mode, always with the same weights."""
        name = f"<random module {self.number}>"
        linecache.cache[name] = (len(self.source), None, self.source.splitlines(True), name)
        names: dict[str, Any] = {}
        exec(compile(self.source, name, "exec"), names)
        module: nn.Module = names["Random"]()
        return module.eval()

    def example(self) -> tuple[Tensor, ...]:
        """What it is compiled with."""
        return self._inputs(0)

    def unseen(self) -> list[tuple[Tensor, ...]]:
        """Inputs of other shapes and magnitudes."""
        return [self._inputs(k) for k in range(1, len(SHAPES[self.rank]))]

    def _inputs(self, k: int) -> tuple[Tensor, ...]:
        random = torch.Generator().manual_seed(k)
        leading = SHAPES[self.rank][k]
        if self.inputs == "tokens":
            return (torch.randint(VOCABULARY, leading, generator=random),)
        count = len(self.inputs.split(","))
        rows = (torch.randn(*leading, self.width, generator=random) for _ in range(count))
        return tuple(map(MAGNITUDES[k], rows))


def generate(number: int) -> Case:
    """The module of that number."""
    rng = random.Random(number)
    rank = rng.choices((3, 2, 4), (8, 1, 1))[0]
    width = rng.choice(WIDTHS)
    b = Builder(rng, width)
    inputs = rng.choices(("x", "x, other", "tokens"), (8, 1, 1))[0]
    _begin(b, inputs)
    tame = layers.ANY_RANK + layers.SEQUENCES * (rank == 3)
    parts = rng.choices(tame, k=rng.randint(1, 3))
    parts += [_odd] * rng.choices((0, 1, 2), (6, 4, 1))[0]
    parts += [_near] * (rng.random() < 0.15)
    rng.shuffle(parts)
    for part in parts:
        part(b)
    if rng.random() < 0.15:
        b.result = b.pick(oddities.RESULTS)
        if "start" in b.result and inputs != "tokens":
            b.forward.insert(0, "start = x")
    features = tuple(dict.fromkeys([f"rank {rank}", f"inputs {inputs}", *b.features]))
    return Case(number, b.source(number, inputs), features, rank, width, inputs)


def _begin(b: Builder, inputs: str) -> None:
    if inputs == "tokens":
        table = f"self.table = nn.Embedding({VOCABULARY}, $W)"
        b.add(Lines("x = self.table(tokens)", table))
    elif inputs == "x, other":
        b.add(Lines(b.rng.choice(("x = x + other", "x = x * torch.sigmoid(other)"))))


def _odd(b: Builder) -> None:
    table = b.rng.choice(list(oddities.ODDITIES.values()))
    name = b.rng.choice(list(table))
    b.features.append(name)
    if "FloatNormed" in table[name].init:
        b.helpers.append(oddities.FLOAT_NORMED.replace("NAME", "FloatNormed"))
    b.add(table[name])


def _near(b: Builder) -> None:
    layers.projected(b, near=True)
