"""Optional Protocols of backends that say more about what they made, for `mmfree explain`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.interface import Backend, Compiler
from mmfree_compiler.program import Program

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
    """Measured seconds of a decode step: of all of it, and of each stage in order.

    A stage's seconds are those of all iterations of the loop around it. `rates` were measured on
    the same machine, with the same number of `threads`.
    """

    threads: int
    decode: float
    stages: tuple[float, ...]
    rates: Rates


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
    """A compiler that can measure the stages of what it made, in the process that made it."""

    def profile(self, artifact: Artifact, threads: int | None) -> Profile:
        """Measure on this machine, with `threads` as for Launcher.open.

        Raises TargetError where this machine runs no build, ToolchainError.
        """
