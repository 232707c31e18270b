"""Choosing the build of an artifact that this machine runs."""

from __future__ import annotations

from mmfree_compiler.artifact import TargetEntry
from mmfree_compiler.backends.cpu import features
from mmfree_compiler.backends.cpu.facts import ABI, CpuBuild
from mmfree_compiler.errors import ArtifactError


def choose(entry: TargetEntry) -> CpuBuild:
    """The first build that this machine runs, or the one that MMFREE_VARIANT names.

    Raises TargetError if there is none, ArtifactError if all use other calling conventions.
    """
    builds = known(entry)
    for build in () if builds else entry.builds:
        raise ArtifactError(
            f"build {build.name}",
            f"uses calling convention {build.abi}, this runtime supports {ABI}",
            "Upgrade mmfree-compiler" if build.abi > ABI else "Compile the model again",
        )
    return features.choose(builds)


def known(entry: TargetEntry) -> list[CpuBuild]:
    """The builds of this version's calling convention; the facts of others mean something else."""
    return [CpuBuild(build) for build in entry.builds if build.abi == ABI]
