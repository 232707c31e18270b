"""What the ONNX backend tells for `mmfree explain`. ONNX Runtime plans its memory itself."""

from __future__ import annotations

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.explained import Table
from mmfree_compiler.backends.onnx.facts import MODEL, read_facts


def kernel_choices(artifact: Artifact) -> Table:
    """The model. Raises ArtifactError."""
    return {
        build.name: {
            "model bytes": artifact.members[build.members[MODEL]].size,
            "bits per weight": round(read_facts(build).bits, 3),
        }
        for build in artifact.entry.builds
    }
