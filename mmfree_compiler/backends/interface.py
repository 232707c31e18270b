"""The interface of backends: Protocols between the compiler, the runtime and each target.

A backend has two halves: a `Compiler`, which may need heavy packages, and a `Launcher`, which needs
only the base install. The artifact is all that one half passes to the other.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.artifact import Artifact, Build, TensorEntry
from mmfree_compiler.program import Program

Array = NDArray[np.generic]
Indices = NDArray[np.intp] | Sequence[int] | slice
Settings = Mapping[str, int]

# "missing": something optional is not installed; "failed": something that should work does not;
# "elsewhere": what is meant for other machines.
Status = Literal["ok", "missing", "failed", "elsewhere"]


@dataclass(frozen=True)
class Check:
    """One line of `mmfree doctor`: the `name` of what it checked, what it found, and how to fix it.

    `hint` is empty if there is nothing to fix.
    """

    name: str
    status: Status
    found: str
    hint: str = ""


class Spec(Protocol):
    """The parsed options of a target; its str() is their shortest spelling."""

    def __str__(self) -> str: ...


class Backend(Protocol):
    """One kind of target. Importing and creating it needs only the base install."""

    @property
    def kind(self) -> str:
        """Its name in targets, such as "reference"."""

    @property
    def extra(self) -> str:
        """The distribution to install for compiling, such as "mmfree-compiler[cpu]"."""

    @property
    def formats(self) -> tuple[str, ...]:
        """Suffixes of the files that its models are saved to; empty if they cannot be saved.

        Those of another suffix than ".mmfree" a backend reads and writes itself: own_files.py.
        """

    @property
    def options(self) -> tuple[str, ...]:
        """Names of keyword arguments for `load(path, name=...)`, such as "threads"."""

    def parse(self, options: str) -> Spec:
        """The Spec for the part of a target after the colon; "" is the default.

        Raises a TargetError that lists the known options.
        """

    def here(self) -> Spec:
        """The Spec of the best build that this machine runs. Raises TargetError if it runs none."""

    def checks(self) -> Iterable[Check]:
        """Checks of what this machine can compile and run, for `mmfree doctor`."""

    def describe(self, artifact: Artifact) -> Mapping[str, str]:
        """Facts about the builds of its `entry` for `mmfree inspect`: name -> text for people."""

    def compiler(self) -> Compiler:
        """The compiling half. Raises ImportError if `extra` is not installed."""

    def launcher(self) -> type[Launcher]:
        """The class of the running half."""


@runtime_checkable
class Listing(Backend, Protocol):
    """A backend whose code people can read, for `mmfree disasm`."""

    def listing(self, artifact: Artifact) -> Mapping[str, str]:
        """The code of the builds of its `entry`: the name of each program -> its text.

        Raises ArtifactError when it is damaged.
        """


# --- compiling -----------------------------------------------------------------------------------


class ProgramPass(Protocol):
    """A frozen dataclass with a `name`, its options as fields, and a call.

    The call returns a new Program that is valid, computes the same, and has notes of what was done.
    """

    @property
    def name(self) -> str: ...

    def __call__(self, program: Program, /) -> Program: ...


@dataclass(frozen=True)
class Emitted:
    """The result of a compiler: `builds` in order of preference, and the files that they need.

    `members` (name -> bytes) include weights.bin; `tensors` describe the constants in it.
    """

    builds: tuple[Build, ...]
    tensors: Mapping[str, TensorEntry] = field(default_factory=dict)
    members: Mapping[str, bytes | NDArray[np.uint8]] = field(default_factory=dict)


class Compiler(Protocol):
    """Makes artifacts."""

    @property
    def ops(self) -> frozenset[str]:
        """Names of the ops that it can lower."""

    def passes(self, program: Program, spec: Any) -> tuple[ProgramPass, ...]:
        """The passes between RollLayers and `emit`, such as packing and memory planning.

        They keep the order of inputs, outputs and states. The manifest has the names and sizes from
        before them, which all targets have in common.
        """

    def emit(self, program: Program, spec: Any) -> Emitted:
        """Builds and files for a Program that went through `passes`. Raises ToolchainError.

        Constants may stand in another order: what a target stores like its neighbour in the
        artifact is stored once, if weights.bin has the constants in the order of the Program.
        """


@runtime_checkable
class Tunable(Compiler, Protocol):
    """A compiler with settings that `mmfree tune` searches. They change speed, never results.

    Every `spec` here has one build, such as that of Backend.here.
    """

    def candidates(self, spec: Any) -> Mapping[str, tuple[int, ...]]:
        """Settings that may be tried, and their values."""

    def defaults(self, spec: Any) -> Settings:
        """The settings of a build when none are kept for this machine."""

    def retuned(self, artifact: Artifact, spec: Any, settings: Settings) -> Artifact:
        """`artifact` built again with other settings, all of them given."""

    def keep(self, program: Program, spec: Any, settings: Settings) -> None:
        """Make later compilations of Programs of these shapes use `settings` on this machine."""


# --- running -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """M tokens of some sequences.

    `inputs` are one array per port: (M,) int64 token ids, or (M, width) float32 rows. `slots` (M,)
    int32 says which sequence of the states each token belongs to, and `positions` (M,) int64 where
    in that sequence it stands; tokens of a slot are in the order of their positions. `wanted` are
    the ascending indices of the tokens whose outputs are needed.
    """

    inputs: tuple[Array, ...]
    slots: NDArray[np.int32]
    positions: NDArray[np.int64]
    wanted: NDArray[np.intp]

    @classmethod
    def whole(cls, inputs: tuple[Array, ...], leading: tuple[int, ...]) -> Self:
        """All tokens of new sequences, all of them wanted.

        `leading` are the dimensions in front of a row: the last is time, the others sequences.
        """
        time = leading[-1] if leading else 1
        index = np.arange(math.prod(leading))
        return cls(inputs, (index // time).astype(np.int32), index % time, index)


class Slot(Protocol):
    """A state of the model: program.StateSlot while compiling, artifact.StateEntry afterwards."""

    @property
    def name(self) -> str: ...
    @property
    def shape(self) -> tuple[int, ...]: ...
    @property
    def count(self) -> int: ...


class States(Protocol):
    """The states of some sequences, in memory of the target's choice."""

    def __len__(self) -> int:
        """The number of sequences."""

    def take(self, rows: Indices) -> Self:
        """A copy of some sequences."""

    def put(self, rows: Indices, other: States) -> None:
        """Overwrite some sequences by those of `other`, which may be of another target."""

    def export(self) -> dict[str, NDArray[np.float32]]:
        """NumPy copies of each StateSlot by name, (sequences, count, *shape)."""


class Launcher(Protocol):
    """Runs an artifact. Several threads may call it at once, with different states."""

    @classmethod
    def open(cls, artifact: Artifact, *_: Any, **options: Any) -> Self:
        """Make the artifact ready to run on this machine; `options` are those of the backend.

        `artifact` is as the launcher's own target sees it. Raises TargetError when this machine
        runs none of its builds: another target of the artifact is then tried. All else ends the
        search: DeviceError when a device that would run them cannot be used now, ArtifactError when
        the artifact is damaged, InputError on an option.
        """

    @property
    def build(self) -> str:
        """The name of the build that runs here, for people."""

    @property
    def weight_bytes(self) -> int:
        """Bytes of packed ternary weights that a decode step reads."""

    def states(self, count: int) -> Any:
        """States of `count` sequences that have seen no tokens."""

    def run(self, batch: Batch, states: Any) -> tuple[NDArray[np.float32], ...]:
        """Advance `states`, made by `self.states`, by the tokens of `batch`.

        Returns (W, width) float32 for each output port, where W is the number of wanted tokens. M
        has no limit.
        """

    def close(self) -> None:
        """Release memory and other resources; the launcher is not used again."""


@runtime_checkable
class OnDevice(Protocol):
    """A launcher whose device has a memory of its own."""

    @property
    def device_bytes(self) -> int:
        """Bytes that it has there for weights, rows and states; code is not counted."""
