"""Optional Protocols of backends that say more about what they made, for `mmfree explain`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import numpy as np

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.interface import Backend, Batch, Compiler
from mmfree_compiler.program import Program

Group = tuple[str, ...]  # nodes by their first outputs
MEASURED = "measured"
Table = Mapping[str, Mapping[str, int | float | str]]  # the name of a row -> its facts


@dataclass(frozen=True)
class Rates:
    """What bounds any program on a machine, per second; None where it is unknown.

    `integers` are additions of int8 codes (a multiply-add counts as one), `floats` operations in
    fp32. `how` says which machine it is, and where the numbers are from.
    """

    how: str
    nbytes: float | None = None
    integers: float | None = None
    floats: float | None = None


@dataclass(frozen=True)
class Profile:
    """The seconds of a decode step of one token: `decode` of all of it, and those of its parts.

    `groups` are nodes that have a time together, each named by its first output; all are of one
    stage. A time is that of all iterations of the loop around them. `others` has what belongs to no
    node, by what it is: it may be negative where the parts take longer than the whole.

    `how` says what made the times, behind one: "measured", "by the cycle model at 300 MHz". Where
    groups are `overlapping`, each has the time that is its own alone, which may be less than its
    work takes. `rates` are those of the machine that ran; None where they are what BuildFacts says
    or, without that, those of this machine's CPUs (see Gauge), of which `threads` ran.
    """

    decode: float
    groups: Mapping[Group, float]
    others: Mapping[str, float] = field(default_factory=dict)
    how: str = MEASURED
    overlapping: bool = False
    threads: int | None = None
    rates: Rates | None = None


@dataclass(frozen=True)
class BuildFacts:
    """What a backend tells of the builds that it made.

    `memory` is what the launcher allocates, `kernels` the code of each build and what was chosen
    for it. `rates` are those of the machine that the first build is for, None if only a profile
    tells them. `chosen` is the build that this machine runs, "" where it runs none. `program` is
    the last Program with the constants that this one reads, None if it reads all.
    """

    memory: Table = field(default_factory=dict)
    kernels: Table = field(default_factory=dict)
    rates: Rates | None = None
    chosen: str = ""
    program: Program | None = None


@runtime_checkable
class Explained(Backend, Protocol):
    """A backend that tells how it uses memory, and which kernels it made."""

    def explained(self, artifact: Artifact) -> BuildFacts:
        """What it tells of the builds of `entry`. Raises ArtifactError on wrong facts."""


@runtime_checkable
class Profiler(Compiler, Protocol):
    """A compiler that can tell what the parts of a step take, in the process that made them."""

    def profile(self, artifact: Artifact, threads: int | None) -> Profile:
        """Measure on this machine, with `threads` as for Launcher.open.

        Raises TargetError where this machine runs no build, ToolchainError.
        """


@runtime_checkable
class Gauge(Compiler, Protocol):
    """A compiler that can measure what bounds any program on this machine's CPUs."""

    def gauge(self, nbytes: int, threads: int) -> Rates:
        """The rates of `threads` threads that read `nbytes` bytes of weights in turn.

        Raises TargetError where it makes no code for this machine, ToolchainError.
        """


def one_token(artifact: Artifact) -> Batch:
    """The first token of one sequence: what a profile's step is about."""
    rows = [
        np.zeros(1, np.int64) if port.dtype == "int64" else np.ones((1, port.width), np.float32)
        for port in artifact.manifest.inputs
    ]
    return Batch.whole(tuple(rows), (1,))
