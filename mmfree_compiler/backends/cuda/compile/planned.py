"""The Program after the passes of the CUDA target: with places in the device's scratch memory."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from mmfree_compiler.program import Program


@dataclass(frozen=True)
class Place:
    """The rows of a value: bytes from the start of the scratch memory, and from row to row."""

    offset: int
    stride: int


@dataclass(frozen=True)
class PlannedProgram(Program):
    """For calls of at most `chunk` tokens.

    `places` has the values that one kernel makes and another reads; they take `scratch` bytes.

    The rows of outputs begin at byte `output_start`: see facts.Facts.
    """

    places: Mapping[str, Place] = field(default_factory=dict)
    chunk: int = 0
    scratch: int = 0
    output_start: int = 0

    def details(self) -> Iterator[str]:
        for name, place in self.places.items():
            yield f"{name} at {place.offset}, rows of {place.stride} bytes"
        yield f"calls of {self.chunk} tokens"
        yield f"scratch {self.scratch} bytes, outputs at {self.output_start}"
