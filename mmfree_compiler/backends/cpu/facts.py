"""The facts of a CPU build in the manifest. Only the CPU launcher reads them, strictly."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from mmfree_compiler.artifact import Build
from mmfree_compiler.artifact.entries import Count, Size
from mmfree_compiler.backends.builds import Record, check_member, facts_in
from mmfree_compiler.backends.cpu.layouts import LAYOUTS

ABI = 6  # the number of the calling convention in run/launcher.py; each change increments it
KERNELS = "kernels"  # the role of a build's shared library among its members


def _known_layout(name: str) -> str:
    if name not in LAYOUTS:
        raise ValueError(f"unknown layout {name!r}")
    return name


class MemoryPlan(Record):
    """The memory that the launcher allocates.

    `shared` and `private` are float32 elements per token, `codes` int8 elements per token. A call
    takes at most `chunk` tokens. With more threads than that, `private` and `codes` are needed per
    thread. `scratch` is in bytes per thread.
    """

    shared: Count = 0
    private: Count = 0
    codes: Count = 0
    scratch: Count = 0
    chunk: Size = 1


class Facts(Record):
    """`arch` is a name from platform.machine(); `features` are the CPU features that are used.

    `layout` is the layout of the ternary weights that they read. `tuning` are the settings that
    they were compiled with, which affect only their speed.
    """

    arch: str
    features: list[str]
    layout: Annotated[str, AfterValidator(_known_layout)]
    memory: MemoryPlan
    tuning: dict[str, int] = Field(default_factory=dict)


class CpuBuild:
    """A build with its facts, which implements variants.RequiresCpu."""

    def __init__(self, build: Build) -> None:
        """Raises ArtifactError if the facts are not those of a CPU build."""
        self.build, self.name, self.abi = build, build.name, build.abi
        self.facts = facts_in(build, Facts)
        self.arch, self.features = self.facts.arch, self.facts.features
        check_member(build, KERNELS)
