"""What the ONNX backend tells for `mmfree explain`. ONNX Runtime plans its memory itself."""

from __future__ import annotations

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.explained import BuildFacts
from mmfree_compiler.backends.onnx.facts import MODEL, read_facts


def explained(artifact: Artifact) -> BuildFacts:
    """See explained.Explained: the model. It runs wherever ONNX Runtime does."""
    kernels = {
        build.name: {
            "model bytes": artifact.members[build.members[MODEL]].size,
            "bits per weight": round(read_facts(build).bits, 3),
        }
        for build in artifact.entry.builds
    }
    return BuildFacts(kernels=kernels, chosen=next(iter(kernels), ""))
