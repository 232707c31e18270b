"""The facts of an FPGA build in the manifest. Only the FPGA launcher reads them, strictly."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from mmfree_compiler.artifact import Build
from mmfree_compiler.backends.builds import Record, check_abi, facts_in
from mmfree_compiler.backends.fpga.board import Board
from mmfree_compiler.backends.fpga.layouts import DENSITIES, Trits

ABI = 2  # the number of the instruction set and of the memory map; each change increments it
# The programs, roles of a build's members: logits of the wanted tokens, the states alone, and steps
# that choose their tokens.
FORWARD, ADVANCE, DECODE = "forward", "advance", "decode"
IDS, LOGITS = "ids", "logits"  # the places of what DECODE chose, and of what it chose from
# Of one run. The host gets tokens run by run, and runs steps again that went too far.
MOST_TOKENS, MOST_STEPS = 64, 8

Lines = Annotated[int, Field(ge=0, lt=1 << 32)]


def _known_density(name: str) -> str:
    if name not in DENSITIES:
        raise ValueError(f"unknown density {name!r}")
    return name


class Facts(Record):
    """The machine that a build is for, and what lies where in the device's memory.

    A run has up to `tokens` tokens, and decodes up to `steps` steps. The weights fill `weights`
    lines from line 0 on, and `memory` lines follow. `places` are the first lines of inputs,
    outputs, states, chosen ids and logits, by compile.draft.place; the logits of a sequence are
    those of `steps` steps, one after the other.
    """

    board: Board
    density: Annotated[str, AfterValidator(_known_density)]
    tokens: int = Field(gt=0, le=MOST_TOKENS)
    steps: int = Field(gt=0, le=MOST_STEPS)
    weights: Lines
    memory: Lines
    places: dict[str, Lines]

    @property
    def layout(self) -> Trits:
        return Trits(self.density, self.board.engines)


def read_facts(build: Build) -> Facts:
    """Raises ArtifactError unless this version runs the build, and its facts are valid."""
    check_abi(build, ABI)
    return facts_in(build, Facts)
