"""What each kernel of a decode step takes on this machine's GPU, and the nodes that it runs."""

from __future__ import annotations

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.cuda.archs import ARCHS
from mmfree_compiler.backends.cuda.compile.planned import PeeledProgram
from mmfree_compiler.backends.cuda.compile.schedule import Part, schedule
from mmfree_compiler.backends.cuda.facts import Plan
from mmfree_compiler.backends.cuda.run.executor import Limits
from mmfree_compiler.backends.cuda.run.launcher import CudaLauncher
from mmfree_compiler.backends.explained import Group, Profile, Rates, one_token

OVERLAP = "between kernels, less what they run at once"


def profile(artifact: Artifact) -> Profile:
    """See explained.Profiler. Raises TargetError without a GPU."""
    assert artifact.program is not None
    launcher = CudaLauncher.open(artifact)
    try:
        return profile_of(launcher, artifact)
    finally:
        launcher.close()


def profile_of(launcher: CudaLauncher, artifact: Artifact) -> Profile:
    """As `profile`, of an open launcher of `artifact`."""
    assert isinstance(artifact.program, PeeledProgram)
    times = launcher.step_times(one_token(artifact))
    groups = dict(zip(kernels(artifact.program, times.plan), times.launches, strict=True))
    rest = {OVERLAP: times.whole - sum(times.launches)}
    rates = _rates(launcher.limits, launcher.weight_bytes, launcher.build)
    return Profile(times.whole, groups, rest, rates=rates)


def kernels(program: PeeledProgram, plan: Plan) -> list[Group]:
    """The nodes that each launch of a plan runs."""
    launched = [launch.kernel for step in plan.steps for launch in step.launches]
    for fused in (True, False):
        runs = schedule(program, plan.together, fused)
        parts = [part for run in runs for part in run.parts]
        if len(parts) == len(launched) and all(map(_is_of, launched, parts)):
            return [tuple(n.outputs[0] for n in (*part.rows, *part.nodes)) for part in parts]
    raise AssertionError(f"no schedule has the launches {launched}")


def _is_of(kernel: str, part: Part) -> bool:
    return kernel.startswith(part.name)


def _rates(limits: Limits, read: int, arch: str) -> Rates:
    """Those of the GPU, of whose cache nothing is known; products have the card's rate."""
    card = ARCHS[arch].card
    cached = read <= limits.cache
    memory = "weights stay in its cache" if cached else "memory by its clock and width"
    return Rates(
        f"{limits.name}: {memory}; additions by the data sheet of {card.name}",
        nbytes=None if cached else limits.memory,
        integers=card.int8 / 2,
    )
