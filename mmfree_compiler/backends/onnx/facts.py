"""The facts of an ONNX build in the manifest. Only the ONNX launcher reads them, strictly."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError

from mmfree_compiler.artifact import Build
from mmfree_compiler.artifact.entries import Count
from mmfree_compiler.backends.onnx.variants import VARIANTS
from mmfree_compiler.errors import ArtifactError

ABI = 1  # the number of the order of inputs and outputs in names.py; each change increments it
MODEL = "model"  # the role of a build's ONNX model among its members


def _known_variant(name: str) -> str:
    if name not in VARIANTS:
        raise ValueError(f"unknown variant {name!r}")
    return name


class Facts(BaseModel):
    """What the model holds, in bytes: ternary weights with their scales, tables, everything else.

    `weights` is the number of ternary weights. `external` says that weights.bin has the data of the
    large tensors, which the model names `location`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

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
    thing, remake = f"build {build.name}", "Compile the model again"
    if build.abi != ABI:
        cause = f"uses calling convention {build.abi}, this runtime supports {ABI}"
        raise ArtifactError(thing, cause, "Upgrade mmfree-compiler" if build.abi > ABI else remake)
    if MODEL not in build.members:
        raise ArtifactError(thing, f"has no member {MODEL!r}", remake)
    try:
        return Facts.model_validate(build.facts)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        cause = f"has invalid facts: {'.'.join(map(str, first['loc']))}: {first['msg']}"
        raise ArtifactError(thing, cause, remake) from error
