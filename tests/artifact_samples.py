"""A small sound artifact for the tests of the reader and the runtime."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np

from mmfree_compiler.artifact import (
    Artifact,
    Build,
    Port,
    StateEntry,
    TargetEntry,
    binding,
    pack_constants,
)
from mmfree_compiler.backends.cpu.facts import ABI, KERNELS, Facts, MemoryPlan
from mmfree_compiler.program import Array, Constant

KERNEL = "kernels/portable.so"


@dataclass(frozen=True)
class SomeLayout:
    """A layout that no reader of an artifact knows."""

    name: str = "some-layout"

    def unpack(self, part: Array, shape: tuple[int, ...]) -> Array:
        raise NotImplementedError


def sample_constants() -> tuple[Constant, ...]:
    random = np.random.default_rng(0)
    floats = tuple(random.standard_normal((3, 5)).astype(np.float32) for _ in range(2))
    half = (random.integers(0, 1 << 16, (7,), dtype=np.uint16),)
    packed = tuple(random.integers(0, 256, 64, dtype=np.uint8) for _ in range(2))
    return (
        Constant("floats", "float32", (3, 5), floats),
        Constant("half", "bfloat16", (7,), half),
        Constant("packed", "int8", (16, 16), packed, "ternary", SomeLayout()),
    )


def sample_build() -> Build:
    facts = Facts(arch="x86_64", features=[], layout="tile16_2bit", memory=MemoryPlan())
    return Build(
        name="portable", abi=ABI, members={KERNELS: KERNEL}, facts=facts.model_dump(mode="json")
    )


def sample_fields() -> dict[str, Any]:
    return {
        "kind": "lm",
        "fingerprint": "0123456789abcdef" * 4,
        "model": {"vocab_size": 10, "eos_token_id": [1, 2]},
        "inputs": (Port(name="tokens", dtype="int64", width=1, limit=10),),
        "outputs": (Port(name="logits", dtype="float32", width=10),),
        "states": (StateEntry(name="scan", shape=(10,), count=2),),
        "passes": ("canonicalize", "ternarize"),
        "notes": (("ternarize", "layers.0", "scale 0.5"),),
    }


def sample_artifact(entry: Mapping[str, Any] = MappingProxyType({}), **changes: Any) -> Artifact:
    """With changes to the fields of its target, and to those of the manifest."""
    weights, tensors = pack_constants(sample_constants())
    members: dict[str, Any] = {
        "weights.bin": weights,
        KERNEL: b"\x7fELF" + binding.NOTE + bytes(binding.SIZE),
        "tokenizer.json": b"{}",
    }
    fields: dict[str, Any] = {
        "target": "cpu",
        "builds": (sample_build(),),
        "nbytes": weights.size,
        "tensors": tensors,
        "passes": ("pack_weights",),
        "notes": (("pack_weights", "packed", "2 bits"),),
    }
    targets = (TargetEntry(**fields | dict(entry)),)
    return Artifact.build(members, **({"targets": targets} | sample_fields() | changes))
