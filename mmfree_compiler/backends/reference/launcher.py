"""Runs an artifact's Program in the process that compiled it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.interface import Batch
from mmfree_compiler.backends.numpy_states import NumpyStates
from mmfree_compiler.backends.reference.interpreter import interpret
from mmfree_compiler.errors import TargetError
from mmfree_compiler.program import Program


@dataclass(frozen=True)
class ReferenceLauncher:
    """See interface.Launcher."""

    artifact: Artifact
    program: Program
    build: ClassVar[str] = "reference"
    weight_bytes: ClassVar[int] = 0  # weights are not packed

    @classmethod
    def open(cls, artifact: Artifact) -> ReferenceLauncher:
        if artifact.program is None:
            cause = "runs only in the process that compiled it"
            raise TargetError("target reference", cause, "Compile the model in this process")
        return cls(artifact, artifact.program)

    def states(self, count: int) -> NumpyStates:
        return NumpyStates.zero(self.artifact.manifest.states, count)

    def run(self, batch: Batch, states: NumpyStates) -> tuple[NDArray[np.float32], ...]:
        return interpret(self.program, batch, states.arrays)

    def close(self) -> None:
        """Nothing to release."""
