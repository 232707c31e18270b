"""The Program after the passes of the CUDA target: a body for prompts, places in scratch memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Self

from mmfree_compiler.program import Loop, Program, Step


@dataclass(frozen=True)
class Iterations(Loop):
    """Some iterations of a loop, apart: `count` of them, from number `first` on."""

    first: int


@dataclass(frozen=True)
class PeeledProgram(Program):
    """`together` is the body for calls with several tokens of a sequence: see passes/peel_last."""

    together: tuple[Step, ...] = ()

    def called(self, together: bool) -> Self:
        """The Program as calls with several tokens of a sequence run it, or the others."""
        return replace(self, body=self.together) if together else self

    def details(self) -> Iterator[str]:
        apart = [step for step in self.together if isinstance(step, Iterations)]
        for step in apart:
            yield f"prompts: iteration {step.first} apart, {len(step.body)} of its stages"


@dataclass(frozen=True)
class Place:
    """The `rows` of a value: bytes from the start of the scratch memory, and from row to row."""

    offset: int
    stride: int
    rows: int

    @property
    def end(self) -> int:
        """The first byte behind all rows."""
        return self.offset + self.rows * self.stride


@dataclass(frozen=True)
class PlannedProgram(PeeledProgram):
    """For calls of at most `chunk` tokens.

    `places` has the values that one kernel makes and another reads; they take `scratch` bytes.

    The rows of outputs begin at byte `output_start`: see facts.Facts.
    """

    places: Mapping[str, Place] = field(default_factory=dict)
    chunk: int = 0
    scratch: int = 0
    output_start: int = 0

    def details(self) -> Iterator[str]:
        yield from super().details()
        for name, place in self.places.items():
            yield f"{name} at {place.offset}, {place.rows} rows of {place.stride} bytes"
        yield f"calls of {self.chunk} tokens"
        yield f"scratch {self.scratch} bytes, outputs at {self.output_start}"
