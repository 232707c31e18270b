"""The door to the kernels: what a target's launcher does, and which module has it."""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from typing import Protocol, cast

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.artifact import Artifact, Manifest, aligned_empty
from mmfree_compiler.errors import TargetError
from mmfree_compiler.runtime.arrays import Array
from mmfree_compiler.target import Target

Floats = NDArray[np.float32]
Slots = NDArray[np.int32]

# target kind -> "module:class", called with (artifact, threads) and imported when it is needed
LAUNCHERS: dict[str, str] = {"cpu": "mmfree_compiler.runtime.cpu:CpuLauncher"}


class Launcher(Protocol):
    """Runs an artifact's program over M tokens."""

    def run(
        self,
        inputs: tuple[Array, ...],
        slots: Slots,
        state: Floats,
        first: int,
        outputs: tuple[Array, ...],
    ) -> None:
        """Advance sequences by M tokens and fill `outputs` for tokens first..M-1.

        inputs[k] is (M,) int64 token ids or (M, stride) float32 rows; slots[m] is the row of
        `state` (slots, state_width) that token m belongs to, tokens of a slot in time order;
        `state` is updated in place; outputs[k] is (M - first, stride) float32. All are
        C-contiguous and writable; rows, states and outputs are 64-byte aligned. M may exceed what
        one launch of kernels takes. Several threads may call at once, with buffers of their own.
        """


def make_launcher(artifact: Artifact, threads: int) -> Launcher:
    """The launcher of the artifact's target. Raises TargetError when there is none."""
    kind = Target.parse(artifact.manifest.target).kind
    if kind not in LAUNCHERS:
        known = ", ".join(LAUNCHERS)
        raise TargetError(f"target {kind!r}", "has no launcher in this runtime", f"Known: {known}")
    module, _, name = LAUNCHERS[kind].partition(":")
    return cast(Launcher, getattr(import_module(module), name)(artifact, threads))


@dataclass(frozen=True)
class Runner:
    """A launcher, and the buffers that a call to it needs."""

    manifest: Manifest
    launcher: Launcher

    def run(
        self, inputs: tuple[Array, ...], slots: Slots, state: Floats, first: int = 0
    ) -> tuple[Floats, ...]:
        """Outputs (M - first, stride) of the tokens from `first` on; updates `state` in place."""
        rows, ports = len(slots) - first, self.manifest.outputs
        outputs = tuple(aligned_empty((rows, port.stride), np.float32) for port in ports)
        self.launcher.run(inputs, slots, state, first, outputs)
        return outputs
