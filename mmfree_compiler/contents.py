"""How many parameters an artifact has, and how many bytes they take."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Self

from mmfree_compiler.artifact import Artifact, Manifest, TargetEntry, TensorEntry


@dataclass(frozen=True)
class Parameters:
    """Numbers of parameters, and of layers that they belong to.

    `total` and `ternary` are None where all targets keep their constants in files of their own.
    """

    layers: int
    total: int | None
    ternary: int | None

    @classmethod
    def of(cls, artifact: Artifact) -> Self:
        """Those of the model, on whichever of its targets it runs."""
        manifest = artifact.manifest
        # All targets have the same constants, laid out in different ways.
        entry = next((t for t in manifest.targets if t.tensors), artifact.entry)
        named = manifest.model.get("num_hidden_layers")
        counts = (tensor.count for tensor in entry.tensors.values())
        layers = named if isinstance(named, int) and named else max(counts, default=0)
        if not entry.tensors:
            return cls(layers, None, None)
        ternary = _elements(ternary_tensors(entry))
        return cls(layers, ternary + _elements(other_tensors(entry)) - _tied(manifest), ternary)


def state_bytes(manifest: Manifest) -> int:
    """Bytes of the states of one sequence."""
    return 4 * sum(math.prod(slot.shape) * slot.count for slot in manifest.states)


def ternary_tensors(entry: TargetEntry) -> list[TensorEntry]:
    """The ternary weights, in the layout that takes the fewest bytes where there are several."""
    layouts: dict[str, list[TensorEntry]] = {}
    for tensor in entry.tensors.values():
        if tensor.role == "ternary":
            layouts.setdefault(tensor.layout, []).append(tensor)
    return min(layouts.values(), key=lambda listed: sum(t.nbytes for t in listed), default=[])


def other_tensors(entry: TargetEntry) -> list[TensorEntry]:
    """All constants but ternary weights."""
    return [tensor for tensor in entry.tensors.values() if tensor.role != "ternary"]


def read_bytes(entry: TargetEntry) -> int:
    """Bytes of all constants, each in one layout."""
    return sum(tensor.nbytes for tensor in (*ternary_tensors(entry), *other_tensors(entry)))


def _elements(tensors: list[TensorEntry]) -> int:
    """Parameters among the tensors; scales, one number per tensor, are not counted."""
    return sum(tensor.elements for tensor in tensors if tensor.elements > tensor.count)


def _tied(manifest: Manifest) -> int:
    """Elements that are stored twice: a tied head is stored as the embedding and packed."""
    shape = [manifest.model.get(key) for key in ("vocab_size", "hidden_size")]
    sizes = [size for size in shape if isinstance(size, int)]
    tied = manifest.model.get("tie_word_embeddings") and len(sizes) == len(shape)
    return math.prod(sizes) if tied else 0
