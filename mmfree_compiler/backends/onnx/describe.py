"""Facts about an ONNX model for `mmfree inspect`."""

from __future__ import annotations

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.onnx.facts import read_facts
from mmfree_compiler.backends.onnx.variants import VARIANTS


def describe(artifact: Artifact) -> dict[str, str]:
    """The variant, its operators, and where the bytes are. Raises ArtifactError on wrong facts."""
    (build,) = artifact.entry.builds
    facts = read_facts(build)
    variant = VARIANTS[facts.variant]
    domains = ["ONNX", *(name for name, _ in variant.domains)]
    return {
        "variant": variant.name,
        "operators": f"{' and '.join(domains)}, opset {variant.opset}",
        "bits per ternary weight": f"{facts.bits:.3g} ({facts.weights:,} weights)",
        "bytes": f"{facts.ternary_bytes:,} ternary, {facts.table_bytes:,} embedding, "
        f"{facts.other_bytes:,} other constants",
    }
