"""What the CPU backend tells for `mmfree explain`: memory, kernels, the layout that is read."""

from __future__ import annotations

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.cpu.choose import choose, known
from mmfree_compiler.backends.cpu.facts import KERNELS, CpuBuild, MemoryPlan
from mmfree_compiler.backends.cpu.strides import state_width
from mmfree_compiler.backends.explained import BuildFacts, Table
from mmfree_compiler.errors import TargetError
from mmfree_compiler.program import Program

_ARENAS = {  # field of MemoryPlan -> (bytes per element, what it holds)
    "shared": (4, "float32 rows that tiles make and other stages read"),
    "private": (4, "float32 rows that norms make"),
    "codes": (1, "int8 codes"),
}


def explained(artifact: Artifact) -> BuildFacts:
    """See explained.Explained: the memory is that of the build for this machine, or the first one.

    What bounds a CPU is measured.
    """
    build = _chosen(artifact)
    shown = build or next(iter(known(artifact.entry)), None)
    name = build.name if build else ""
    return BuildFacts(
        memory={**_arenas(shown.facts.memory), **_states(artifact)} if shown else {},
        kernels={each.name: _facts(artifact, each, name) for each in known(artifact.entry)},
        chosen=name,
        program=_read(artifact, build) if build else None,
    )


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


def _facts(artifact: Artifact, build: CpuBuild, chosen: str) -> dict[str, int | float | str]:
    code = artifact.members[build.build.members[KERNELS]]
    found: dict[str, int | float | str] = {"weights": build.facts.layout, "code bytes": code.size}
    found |= build.facts.tuning
    return found | ({"runs": "here"} if build.name == chosen else {})


def _read(artifact: Artifact, build: CpuBuild) -> Program | None:
    """The Program with the constants that a build reads."""
    from mmfree_compiler.backends.cpu.compile.packed import reading

    return artifact.program and reading(artifact.program, build.facts.layout)


def _chosen(artifact: Artifact) -> CpuBuild | None:
    try:
        return choose(artifact.entry)
    except TargetError:
        return None
