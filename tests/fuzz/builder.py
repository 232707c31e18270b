"""Writing a random module as Python source, from fragments that each add a few lines."""

from __future__ import annotations

import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from string import Template
from types import MappingProxyType

RARE = 0.1  # how often a row is a rare one
HEADER = """\
import torch
import torch.nn.functional as F
from torch import nn
from mmfree_compiler.models import BitLinear, RMSNorm

kept = []
"""


@dataclass(frozen=True)
class Lines:
    """Lines for forward, which turn rows x into rows x, and for __init__.

    `$W` is the width of x, `$N` a number that no other lines have.
    """

    forward: str
    init: str = ""


@dataclass
class Builder:
    """A module being written; its forward has made `x`, rows of `width`."""

    rng: random.Random
    width: int
    init: list[str] = field(default_factory=list)
    forward: list[str] = field(default_factory=list)
    helpers: list[str] = field(default_factory=list)  # functions and classes before it
    features: list[str] = field(default_factory=list)
    result: str = "x"  # what forward returns
    added: int = 0

    def pick(self, table: Mapping[str, str], rare: Mapping[str, str] = MappingProxyType({})) -> str:
        """The text of a random row, seldom a `rare` one; its name becomes a feature."""
        chosen = rare if rare and self.rng.random() < RARE else table
        name = self.rng.choice(list(chosen))
        self.features.append(name)
        return chosen[name]

    def add(self, lines: Lines) -> None:
        """Write `lines`."""
        self.added += 1
        names = {"W": str(self.width), "N": str(self.added)}
        self.init += Template(lines.init).substitute(names).splitlines()
        self.forward += Template(lines.forward).substitute(names).splitlines()

    def helper(self, text: str) -> str:
        """The name of the function or class `text`, which is written there as NAME."""
        if text not in self.helpers:
            self.helpers.append(text)
        return f"Part{self.helpers.index(text)}"

    def source(self, seed: int, inputs: str) -> str:
        """The whole module, called Random."""
        helpers = [text.replace("NAME", self.helper(text)) for text in self.helpers]
        body = [
            "class Random(nn.Module):",
            "    def __init__(self):",
            "        super().__init__()",
            f"        torch.manual_seed({seed})",
            *(f"        {line}" for line in self.init),
            f"    def forward(self, {inputs}):",
            *(f"        {line}" for line in self.forward),
            f"        return {self.result}",
        ]
        return "\n\n".join([HEADER, *helpers, "\n".join(body)]) + "\n"
