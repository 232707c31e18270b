"""Choosing the build of an artifact that a GPU runs, and the architecture to compile for it."""

from __future__ import annotations

from collections.abc import Iterable

from mmfree_compiler.artifact import Build, TargetEntry
from mmfree_compiler.backends.cuda.archs import ARCHS, Arch
from mmfree_compiler.backends.cuda.facts import ABI
from mmfree_compiler.errors import TargetError


def choose(entry: TargetEntry, capability: tuple[int, int]) -> Build:
    """The build for a GPU of this compute capability. Raises TargetError when there is none."""
    builds = {build.name: build for build in entry.builds if build.abi == ABI}
    found = fitting((ARCHS[name] for name in builds if name in ARCHS), capability)
    if found is None:
        names = ", ".join(build.name for build in entry.builds)
        cause = f"runs none of the model's builds: {names}"
        known = fitting(ARCHS.values(), capability)
        hint = f"Compile it for cuda:{known.name}" if known else "Use a newer GPU"
        raise TargetError(f"a GPU of compute capability {_text(capability)}", cause, hint)
    return builds[found.name]


def fitting(archs: Iterable[Arch], capability: tuple[int, int]) -> Arch | None:
    """The best architecture for a GPU.

    Cubins run on GPUs of their own major capability and an equal or larger minor one (CUDA C++
    Programming Guide, "Binary Compatibility").
    """
    major, minor = capability
    runs = [x for x in archs if x.capability[0] == major and x.capability[1] <= minor]
    return max(runs, key=lambda arch: arch.capability, default=None)


def _text(capability: tuple[int, int]) -> str:
    return ".".join(map(str, capability))
