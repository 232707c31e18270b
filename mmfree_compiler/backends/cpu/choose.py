"""Choosing the build of an artifact that this machine runs."""

from __future__ import annotations

from mmfree_compiler.artifact import TargetEntry
from mmfree_compiler.backends.builds import check_abi
from mmfree_compiler.backends.cpu import features
from mmfree_compiler.backends.cpu.facts import ABI, CpuBuild


def choose(entry: TargetEntry) -> CpuBuild:
    """The first build that this machine runs, or the one that MMFREE_VARIANT names.

    Raises TargetError if there is none, ArtifactError if all use other calling conventions.
    """
    builds = known(entry)
    for build in () if builds else entry.builds:
        check_abi(build, ABI)
    return features.choose(builds)


def known(entry: TargetEntry) -> list[CpuBuild]:
    """The builds of this version's calling convention; the facts of others mean something else."""
    return [CpuBuild(build) for build in entry.builds if build.abi == ABI]
