"""The memory of a GPU that a decoding process takes, beside what its model needs."""

from __future__ import annotations

import math
from pathlib import Path

from mmfree_compiler.artifact import Artifact, read_artifact
from mmfree_compiler.runtime import load

TOKENS = 8  # of the text that is decoded meanwhile


def device_bytes(path: Path) -> dict[str, int]:
    """Bytes that decoding takes beyond the context, as the driver counts them, and `needed`.

    Nobody else may use the GPU meanwhile.
    """
    from mmfree_compiler.backends.cuda.run.device import open_device

    with open_device().current():
        before = free_bytes()
        with load(path) as session:
            list(session.generate([1], max_new_tokens=TOKENS, temperature=0, stop_tokens=()))
            taken = before - free_bytes()
    return {"device_bytes": taken, **needed(read_artifact(path))}


def needed(artifact: Artifact) -> dict[str, int]:
    """Bytes of all constants as stored, the embedding included, and of a sequence's states."""
    constants = sum(entry.nbytes for entry in artifact.entry.tensors.values())
    states = (slot.count * math.prod(slot.shape) for slot in artifact.manifest.states)
    return {"constant_bytes": constants, "state_bytes": 4 * sum(states)}


def free_bytes() -> int:
    """Bytes of the current GPU that nobody has."""
    from cuda.bindings import driver

    from mmfree_compiler.backends.cuda.run.driver import call

    free, _ = call(driver.cuMemGetInfo)
    return int(free)
