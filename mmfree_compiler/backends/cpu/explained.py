"""What the CPU backend tells for `mmfree explain`: memory, kernels, the layout that is read."""

from __future__ import annotations

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.cpu.choose import choose, known
from mmfree_compiler.backends.cpu.facts import KERNELS, CpuBuild, MemoryPlan
from mmfree_compiler.backends.cpu.strides import state_width
from mmfree_compiler.backends.explained import Table
from mmfree_compiler.errors import TargetError
from mmfree_compiler.program import Program

_ARENAS = {  # field of MemoryPlan -> (bytes per element, what it holds)
    "shared": (4, "float32 rows that tiles make and other stages read"),
    "private": (4, "float32 rows that norms make"),
    "codes": (1, "int8 codes"),
}


def memory_plan(artifact: Artifact) -> Table:
    """The arenas of the build for this machine, or of the first one. Raises ArtifactError."""
    build = _chosen(artifact) or next(iter(known(artifact.entry)), None)
    if build is None:
        return {}
    return {**_arenas(build.facts.memory), **_states(artifact)}


def _arenas(plan: MemoryPlan) -> Table:
    rows = {
        name: {
            "bytes per token": size * getattr(plan, name),
            f"bytes of {plan.chunk} tokens": size * getattr(plan, name) * plan.chunk,
            "holds": holds,
        }
        for name, (size, holds) in _ARENAS.items()
    }
    scratch = {"bytes per thread": plan.scratch, "holds": "sums and unpacked weights of prefill"}
    return {**rows, "scratch": scratch}


def _states(artifact: Artifact) -> Table:
    nbytes = 4 * state_width(artifact.manifest.states)
    return {"states": {"bytes per sequence": nbytes, "holds": "states of scans"}} if nbytes else {}


def kernel_choices(artifact: Artifact) -> Table:
    """The library of each variant. Raises ArtifactError."""
    chosen = chosen_name(artifact)
    return {build.name: _facts(artifact, build, chosen) for build in known(artifact.entry)}


def _facts(artifact: Artifact, build: CpuBuild, chosen: str) -> dict[str, int | float | str]:
    code = artifact.members[build.build.members[KERNELS]]
    found: dict[str, int | float | str] = {"weights": build.facts.layout, "code bytes": code.size}
    found |= build.facts.tuning
    return found | ({"runs": "here"} if build.name == chosen else {})


def chosen_name(artifact: Artifact) -> str:
    """See explained.Explained.chosen."""
    build = _chosen(artifact)
    return build.name if build else ""


def as_read(program: Program, artifact: Artifact) -> Program:
    """See explained.Explained."""
    from mmfree_compiler.backends.cpu.compile.packed import reading

    build = _chosen(artifact)
    return reading(program, build.facts.layout) if build else program


def _chosen(artifact: Artifact) -> CpuBuild | None:
    try:
        return choose(artifact.entry)
    except TargetError:
        return None
