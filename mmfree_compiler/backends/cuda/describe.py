"""Facts about a CUDA artifact for `mmfree inspect`."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from typing import Self

from mmfree_compiler.artifact import Artifact, StateEntry, TargetEntry, TensorEntry
from mmfree_compiler.backends.cuda.archs import ARCHS
from mmfree_compiler.backends.cuda.bindings import device_module
from mmfree_compiler.backends.cuda.choose import choose
from mmfree_compiler.backends.cuda.facts import CODE, Facts, Plan, read_facts
from mmfree_compiler.errors import MmfreeError


def describe(artifact: Artifact) -> dict[str, str]:
    """The GPUs that the builds are for, what calls launch, and how fast a step could be.

    Raises ArtifactError when facts are wrong, or kernels were not made for the manifest.
    """
    found = [read_facts(build) for build in artifact.entry.builds]
    for build in artifact.entry.builds:
        artifact.check_binding(build.members[CODE])
    step = Step.of(artifact.entry.tensors.values(), artifact.manifest.states)
    described = {
        "GPUs": "; ".join(map(_gpus, found)) or "none",
        "runs here with": _here(artifact.entry),
    }
    for facts in found[:1]:  # the launches of all are nearly the same: settings may differ
        described["launches per call"] = "; ".join(map(_plan, facts.plans))
        described["memory for rows"] = f"{facts.scratch / 1e6:,.1f} MB"
    described["a step of one token"] = (
        f"{step.nbytes / 1e6:,.1f} MB of weights and states, "
        f"{step.operations / 1e9:,.2f} billion operations in products"
    )
    limits = "; ".join(text for facts in found for text in _limit(facts, step))
    return described | {"at least": limits or "unknown"}


def _here(entry: TargetEntry) -> str:
    try:
        first = device_module().devices()[0]
        return f"{choose(entry, first.capability).name}, GPU {first.index} ({first.name})"
    except MmfreeError as error:
        return f"none of them: {error.thing}: {error.cause}"


@dataclass(frozen=True)
class Step:
    """What decoding one token takes: bytes read and written, and operations of its products.

    A multiply-add is two operations. Rows that kernels pass to each other stay in the cache.
    """

    nbytes: int
    operations: int

    @classmethod
    def of(cls, tensors: Collection[TensorEntry], states: Iterable[StateEntry]) -> Self:
        """Weights as stored, with what fills tiles; a row of each table; states both ways."""
        constants = sum(t.row_bytes if t.role == "table" else t.nbytes for t in tensors)
        floats = sum(slot.count * math.prod(slot.shape) for slot in states)
        weights = sum(t.elements for t in tensors if t.role == "ternary")
        return cls(constants + 2 * 4 * floats, 2 * weights)


def _limit(facts: Facts, step: Step) -> Iterator[str]:
    """The least time of a step on the usual card of a build's architecture."""
    if facts.arch in ARCHS:
        card = ARCHS[facts.arch].card
        reading, computing = step.nbytes / card.memory, step.operations / card.int8
        rates = f"{card.memory / 1e9:,.0f} GB/s, {card.int8 / 1e12:,.0f} TOPS"
        times = f"{1e6 * reading:,.1f} µs for memory, {1e6 * computing:,.2f} µs for products"
        yield f"{times} on {card.name} ({rates})"


def _gpus(facts: Facts) -> str:
    known = ARCHS.get(facts.arch)
    return f"{facts.arch} ({known.gpus})" if known else facts.arch


def _plan(plan: Plan) -> str:
    launches = sum(step.count * len(step.launches) for step in plan.steps)
    if plan.tokens == 1:
        return f"{launches} for one token"
    kind = "tokens" if plan.together else "sequences"
    return f"{launches} for up to {plan.tokens} {kind}"
