"""What the CUDA backend tells for `mmfree explain`: memory, kernels, the data sheet of a card."""

from __future__ import annotations

from mmfree_compiler.artifact import Artifact, Build
from mmfree_compiler.backends.cuda.archs import ARCHS
from mmfree_compiler.backends.cuda.bindings import device_module
from mmfree_compiler.backends.cuda.choose import choose
from mmfree_compiler.backends.cuda.facts import Facts, Kernel, read_facts
from mmfree_compiler.backends.explained import Rates, Table
from mmfree_compiler.errors import MmfreeError


def memory_plan(artifact: Artifact) -> Table:
    """The memory of the build for this GPU, or of the first one. Raises ArtifactError."""
    facts = _facts(artifact)
    if facts is None:
        return {}
    return {"scratch": {"bytes": facts.scratch, "holds": "rows between kernels"}}


def kernel_choices(artifact: Artifact) -> Table:
    """The kernels of the build for this GPU, or of the first one. Raises ArtifactError."""
    facts = _facts(artifact)
    return {name: _kernel(kernel) for name, kernel in facts.kernels.items()} if facts else {}


def _kernel(kernel: Kernel) -> dict[str, int | float | str]:
    starts = "before the last one ends" if kernel.dependent else "after the last one"
    return {
        "code bytes": kernel.size,
        "warps": kernel.warps,
        "shared bytes": kernel.shared,
        "starts": starts,
    }


def rates(artifact: Artifact) -> Rates | None:
    """Those of the usual card of the architecture. Raises ArtifactError."""
    facts = _facts(artifact)
    if facts is None or facts.arch not in ARCHS:
        return None
    card = ARCHS[facts.arch].card
    return Rates(f"the data sheet of {card.name}", nbytes=card.memory, integers=card.int8 / 2)


def chosen(artifact: Artifact) -> str:
    """See explained.Explained."""
    build = _here(artifact)
    return build.name if build else ""


def _facts(artifact: Artifact) -> Facts | None:
    build = _here(artifact) or next(iter(artifact.entry.builds), None)
    return read_facts(build) if build else None


def _here(artifact: Artifact) -> Build | None:
    try:
        return choose(artifact.entry, device_module().devices()[0].capability)
    except MmfreeError:
        return None
