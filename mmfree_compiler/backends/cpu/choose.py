"""Choosing the build of an artifact that this machine runs."""

from __future__ import annotations

from mmfree_compiler.artifact import Manifest
from mmfree_compiler.backends.cpu import features
from mmfree_compiler.backends.cpu.facts import ABI, CpuBuild
from mmfree_compiler.errors import ArtifactError


def choose(manifest: Manifest) -> CpuBuild:
    """The first build that this machine runs, or the one that MMFREE_VARIANT names.

    Raises TargetError if there is none, ArtifactError if it uses another calling convention.
    """
    chosen = features.choose([CpuBuild(build) for build in manifest.builds])
    if chosen.abi != ABI:
        raise ArtifactError(
            f"build {chosen.name}",
            f"uses calling convention {chosen.abi}, this runtime supports {ABI}",
            "Compile the model with this version",
        )
    return chosen
