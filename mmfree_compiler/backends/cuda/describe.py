"""Facts about a CUDA artifact for `mmfree inspect`."""

from __future__ import annotations

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.cuda.archs import ARCHS
from mmfree_compiler.backends.cuda.facts import CODE, Facts, Plan, read_facts


def describe(artifact: Artifact) -> dict[str, str]:
    """The GPUs that the builds are for, and what a step launches.

    Raises ArtifactError when facts are wrong, or kernels were not made for the manifest.
    """
    found = [read_facts(build) for build in artifact.entry.builds]
    for build in artifact.entry.builds:
        artifact.check_binding(build.members[CODE])
    described = {"GPUs": "; ".join(map(_gpus, found)) or "none"}
    for facts in found[:1]:  # the plans of all are the same
        described["launches per call"] = "; ".join(map(_plan, facts.plans))
        described["memory for rows"] = f"{facts.scratch / 1e6:,.1f} MB"
    return described


def _gpus(facts: Facts) -> str:
    known = ARCHS.get(facts.arch)
    return f"{facts.arch} ({known.gpus})" if known else facts.arch


def _plan(plan: Plan) -> str:
    launches = sum(step.count * len(step.launches) for step in plan.steps)
    kind = "tokens" if plan.together else "sequences"
    return f"{launches} for up to {plan.tokens} {kind}"
