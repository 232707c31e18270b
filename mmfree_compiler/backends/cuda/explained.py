"""What the CUDA backend tells for `mmfree explain`: memory, kernels, the data sheet of a card."""

from __future__ import annotations

from mmfree_compiler.artifact import Artifact, Build
from mmfree_compiler.backends.cuda.archs import ARCHS
from mmfree_compiler.backends.cuda.bindings import device_module
from mmfree_compiler.backends.cuda.choose import choose
from mmfree_compiler.backends.cuda.facts import Facts, Kernel, read_facts
from mmfree_compiler.backends.explained import BuildFacts, Rates
from mmfree_compiler.errors import MmfreeError


def explained(artifact: Artifact) -> BuildFacts:
    """See explained.Explained: of the build for this GPU, or of the first one."""
    here = _here(artifact)
    build = here or next(iter(artifact.entry.builds), None)
    if build is None:
        return BuildFacts()
    facts = read_facts(build)
    return BuildFacts(
        memory={"scratch": {"bytes": facts.scratch, "holds": "rows between kernels"}},
        kernels={name: _kernel(kernel) for name, kernel in facts.kernels.items()},
        rates=_rates(facts),
        chosen=here.name if here else "",
    )


def _kernel(kernel: Kernel) -> dict[str, int | float | str]:
    starts = "before the last one ends" if kernel.dependent else "after the last one"
    return {
        "code bytes": kernel.size,
        "warps": kernel.warps,
        "shared bytes": kernel.shared,
        "starts": starts,
    }


def _rates(facts: Facts) -> Rates | None:
    """Those of the usual card of the architecture."""
    if facts.arch not in ARCHS:
        return None
    card = ARCHS[facts.arch].card
    return Rates(f"the data sheet of {card.name}", nbytes=card.memory, integers=card.int8 / 2)


def _here(artifact: Artifact) -> Build | None:
    try:
        return choose(artifact.entry, device_module().devices()[0].capability)
    except MmfreeError:
        return None
