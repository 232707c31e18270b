"""The facts of an ONNX build in the manifest. Only the ONNX launcher reads them, strictly."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator

from mmfree_compiler.artifact import Build
from mmfree_compiler.artifact.entries import Count
from mmfree_compiler.backends.builds import Record, check_abi, check_member, facts_in
from mmfree_compiler.backends.onnx.variants import VARIANTS

ABI = 1  # the number of the order of inputs and outputs in names.py; each change increments it
MODEL = "model"  # the role of a build's ONNX model among its members


def _known_variant(name: str) -> str:
    if name not in VARIANTS:
        raise ValueError(f"unknown variant {name!r}")
    return name


class Facts(Record):
    """What the model holds, in bytes: ternary weights with their scales, tables, everything else.

    `weights` is the number of ternary weights. `external` says that weights.bin has the data of the
    large tensors, which the model names `location`.
    """

    variant: Annotated[str, AfterValidator(_known_variant)]
    weights: Count
    ternary_bytes: Count
    table_bytes: Count
    other_bytes: Count
    location: str = ""

    @property
    def bits(self) -> float:
        """Bits per ternary weight."""
        return 8 * self.ternary_bytes / self.weights if self.weights else 0.0


def read_facts(build: Build) -> Facts:
    """Raises ArtifactError if they are not those of an ONNX build of this version."""
    check_abi(build, ABI)
    check_member(build, MODEL)
    return facts_in(build, Facts)
