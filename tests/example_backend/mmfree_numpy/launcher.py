"""The half that runs: needs NumPy and the base install of mmfree_compiler."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.interface import Batch
from mmfree_compiler.backends.numpy_states import NumpyStates
from mmfree_numpy.layout import FOUR_CODES
from mmfree_numpy.ops import OPS, SCANS


class NumpyLauncher:
    """See mmfree_compiler.backends.interface.Launcher."""

    build = "numpy"

    def __init__(self, artifact: Artifact) -> None:
        manifest, tensors = artifact.manifest, artifact.entry.tensors
        self._ports, self._slots = manifest.outputs, manifest.states
        self._inputs = [port.name for port in manifest.inputs]
        self._steps = json.loads(artifact.members["program.json"].tobytes())
        self._constants = {name: _constant(artifact, name) for name in tensors}
        packed = [t.nbytes for t in tensors.values() if t.role == "ternary"]
        self.weight_bytes = sum(packed)

    @classmethod
    def open(cls, artifact: Artifact) -> NumpyLauncher:
        return cls(artifact)

    def close(self) -> None:
        """Nothing to release."""

    def states(self, count: int) -> NumpyStates:
        return NumpyStates.zero(self._slots, count)

    def run(self, batch: Batch, states: NumpyStates) -> tuple[Any, ...]:
        values: dict[str, Any] = dict(zip(self._inputs, batch.inputs, strict=True))
        for step in self._steps:
            values |= {inside: values[initial] for initial, inside in step["carried"]}
            for layer in range(step["count"]):
                for node in step["nodes"]:
                    made = self._apply(node, layer, values, batch.slots, states)
                    outputs = made if isinstance(made, list) else [made]
                    values |= dict(zip(node["outputs"], outputs, strict=True))
                updates = [values[name] for name in step["updates"]]
                inside = [name for _, name in step["carried"]]
                values |= dict(zip(inside, updates, strict=True))
                values |= dict(zip(step["results"], updates, strict=True))
        return tuple(values[port.name][batch.wanted] for port in self._ports)

    def _apply(self, node: Any, layer: int, values: Any, slots: Any, states: NumpyStates) -> Any:
        operands = [self._operand(name, layer, values) for name in node["inputs"]]
        if node["state"] is None:
            attrs = {name: x for name, x in node["attrs"].items() if name != "groups"}
            return OPS[node["op"]](*operands, **attrs)
        scan, own = SCANS[node["op"]], states.arrays[node["state"]][:, layer]
        out = np.empty_like(operands[0])
        for token, slot in enumerate(slots):
            rows = [
                x[token] if name in values else x
                for name, x in zip(node["inputs"], operands, strict=True)
            ]
            out[token] = scan(own[slot], *rows)
        return out

    def _operand(self, name: str | None, layer: int, values: Any) -> Any:
        if name is None or name in values:
            return values.get(name)
        parts = self._constants[name]
        return parts[layer if len(parts) > 1 else 0]


def _constant(artifact: Artifact, name: str) -> Any:
    """All parts of a constant, (count, *shape)."""
    entry, data = artifact.entry.tensors[name], artifact.tensor(name)
    if entry.layout == FOUR_CODES.name:
        return np.stack([FOUR_CODES.unpack(part, entry.shape) for part in data])
    if entry.dtype == "bfloat16":  # its bits are the upper half of a float32's
        return (data.astype(np.uint32) << 16).view(np.float32)
    return data
