"""The interface of backends that say how fast a model would be on hardware that is not here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.interface import Backend
from mmfree_compiler.program import Program

# Where a figure comes from: hardware that ran, sizes and data sheets alone, or a model of hardware.
Origin = Literal["measured", "derived", "projected"]


@dataclass(frozen=True)
class Figure:
    """One number: its `name`, the `value` in `unit`, and where it comes from."""

    name: str
    value: float
    unit: str
    origin: Origin


@dataclass(frozen=True)
class Interval:
    """What a unit does from cycle `start` to cycle `end`."""

    start: int
    end: int
    what: str


@dataclass(frozen=True)
class Projection:
    """`figures` of a `machine`; `units` has all that each unit of it does for one token.

    Intervals of a unit follow each other without gaps; those whose `what` is in `work` are not
    stalls.
    """

    machine: str
    figures: tuple[Figure, ...]
    units: Mapping[str, tuple[Interval, ...]]
    work: frozenset[str]

    def shares(self, unit: str) -> dict[str, float]:
        """Of each thing that a unit does, its part of all cycles."""
        intervals = self.units[unit]
        total = sum(interval.end - interval.start for interval in intervals) or 1
        found: dict[str, float] = {}
        for interval in intervals:
            part = (interval.end - interval.start) / total
            found[interval.what] = found.get(interval.what, 0.0) + part
        return found


@runtime_checkable
class Projector(Backend, Protocol):
    """A backend with a model of its hardware."""

    def project(self, artifact: Artifact) -> Projection:
        """Of the first build of its `entry`. Raises ArtifactError when it is damaged."""

    def project_shape(self, program: Program, spec: Any, shape: str) -> Projection:
        """Of a Program in front of the backend's passes, whose weights hold nothing.

        `shape` is the name of a published model, beside whose figures others are known.
        """
