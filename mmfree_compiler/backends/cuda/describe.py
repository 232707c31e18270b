"""Facts about a CUDA artifact for `mmfree inspect`."""

from __future__ import annotations

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.cuda.archs import ARCHS
from mmfree_compiler.backends.cuda.facts import CODE, Facts, Plan, read_facts


def describe(artifact: Artifact) -> dict[str, str]:
    """The GPUs that the builds are for, and what a step launches.

    Raises ArtifactError when facts are wrong, or kernels were not made for the manifest.
    """
    found = []
    for build in artifact.manifest.builds:
        artifact.check_binding(build.members[CODE])
        found.append(read_facts(build))
    return {
        "GPUs": "; ".join(_gpus(facts) for facts in found),
        "launches per call": "; ".join(map(_plan, found[0].plans)),
        "memory for rows": f"{found[0].scratch / 1e6:,.1f} MB",
    }


def _gpus(facts: Facts) -> str:
    known = ARCHS.get(facts.arch)
    return f"{facts.arch} ({known.gpus})" if known else facts.arch


def _plan(plan: Plan) -> str:
    launches = sum(step.count * len(step.launches) for step in plan.steps)
    kind = "tokens" if plan.together else "sequences"
    return f"{launches} for up to {plan.tokens} {kind}"
