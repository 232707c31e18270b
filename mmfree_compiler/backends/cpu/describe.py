"""Facts about a CPU artifact for `mmfree inspect`."""

from __future__ import annotations

from mmfree_compiler.artifact import Artifact, TargetEntry
from mmfree_compiler.backends.cpu.choose import choose, known
from mmfree_compiler.backends.cpu.facts import KERNELS
from mmfree_compiler.backends.cpu.layouts import LAYOUTS
from mmfree_compiler.errors import MmfreeError


def describe(artifact: Artifact) -> dict[str, str]:
    """The variants, the bits per weight that each reads, and the variant that runs here.

    Raises ArtifactError when facts are wrong, or a library was not made for the manifest.
    """
    entry = artifact.entry
    layouts: dict[str, list[str]] = {}
    for build in known(entry):
        artifact.check_binding(build.build.members[KERNELS])
        layouts.setdefault(build.facts.layout, []).append(build.name)
    read = [f"{LAYOUTS[layout].bits:g}: {', '.join(names)}" for layout, names in layouts.items()]
    return {
        "variants": ", ".join(build.name for build in entry.builds),
        "bits per ternary weight": "; ".join(read) or "unknown",
        "runs here with": _here(entry),
    }


def _here(entry: TargetEntry) -> str:
    try:
        chosen = choose(entry)
    except MmfreeError as error:
        return f"none of them: {error.thing}: {error.cause}"
    settings = ", ".join(f"{name} {value}" for name, value in chosen.facts.tuning.items())
    return f"{chosen.name} ({settings})" if settings else chosen.name
