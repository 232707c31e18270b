"""`mmfree inspect`: what a model.mmfree holds, without running it."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from mmfree_compiler.cli.options import ArtifactPath, Json
from mmfree_compiler.cli.output import emit, facts, grid, size
from mmfree_compiler.errors import TargetError

if TYPE_CHECKING:
    from mmfree_compiler.artifact import Artifact, Manifest, TensorEntry

TERNARY, EMBEDDING, VECTORS = "packed ternary", "embedding", "norms, scales, biases"
KERNELS, TOKENIZER, REST = "kernels", "tokenizer", "manifest, alignment"


def inspect(
    model: ArtifactPath,
    notes: Annotated[
        bool, typer.Option("--notes", help="What each pass did, node by node.")
    ] = False,
    json: Json = False,
) -> None:
    """Show what a compiled model holds: target, variants, sizes, passes, memory."""
    from mmfree_compiler.artifact import read_artifact

    artifact = read_artifact(model, verify=True)
    # Reading it raised unless every hash was right.
    document = {"verified": True} | describe(artifact, model.stat().st_size)
    listed = artifact.manifest.notes if notes else ()
    if notes:
        document["notes"] = listed
    tables = [_overview(document), _memory(document)]
    tables += [grid("Notes", ("pass", "node", "what"), listed)] if notes else []
    emit(json, document, *tables)


def describe(artifact: Artifact, file_size: int) -> dict[str, Any]:
    """The facts of an artifact whose file has `file_size` bytes, ready for JSON."""
    manifest = artifact.manifest
    ternary, others = _elements(manifest, True), _elements(manifest, False)
    parameters = ternary + others - _tied(manifest)
    by_kind = _bytes_by_kind(artifact, file_size)
    return {
        "producer": manifest.producer,
        "target": manifest.target,
        "kind": manifest.kind,
        "variants": [variant.name for variant in manifest.variants],
        "variant_here": _variant_here(manifest),
        "calling_conventions": sorted({variant.abi for variant in manifest.variants}),
        "tuning": {variant.name: variant.tuning for variant in manifest.variants},
        "layers": manifest.model.get("num_hidden_layers")
        or max((tensor.count for tensor in manifest.tensors.values()), default=0),
        "parameters": parameters,
        "ternary_parameters": ternary,
        "bytes": by_kind,
        "file_bytes": file_size,
        "bits_per_ternary_weight": 8 * by_kind[TERNARY] / ternary if ternary else None,
        "bits_per_parameter": 8 * artifact.members["weights.bin"].size / max(parameters, 1),
        "state_bytes_per_sequence": 4 * manifest.state_width,
        "weights_bytes": artifact.members["weights.bin"].size,
        "fp16_bytes": 2 * parameters,
        "fp32_bytes": 4 * parameters,
        "passes": manifest.passes,
        "model": manifest.model,
        "quantization": manifest.quantization,
    }


def _is_ternary(tensor: TensorEntry) -> bool:
    from mmfree_compiler.layouts import LAYOUTS

    return tensor.layout in LAYOUTS


def _elements(manifest: Manifest, ternary: bool) -> int:
    """Parameters among the tensors; scales, one number a tensor, are none."""
    tensors = (t for t in manifest.tensors.values() if _is_ternary(t) == ternary)
    return sum(math.prod(t.shape) * t.count for t in tensors if math.prod(t.shape) > 1)


def _tied(manifest: Manifest) -> int:
    """Elements that are stored twice: a tied head is the embedding, and packed besides."""
    if not manifest.model.get("tie_word_embeddings"):
        return 0
    return math.prod(int(str(manifest.model[key])) for key in ("vocab_size", "hidden_size"))


def _bytes_by_kind(artifact: Artifact, file_size: int) -> dict[str, int]:
    manifest = artifact.manifest
    found = Counter({TERNARY: 0, EMBEDDING: 0, VECTORS: 0, KERNELS: 0, TOKENIZER: 0})
    for tensor in manifest.tensors.values():
        found[_tensor_kind(tensor)] += tensor.nbytes
    for name, member in manifest.members.items():
        if name.startswith("kernels/"):
            found[KERNELS] += member.size
        elif name == "tokenizer.json":
            found[TOKENIZER] += member.size
    return {**found, REST: file_size - found.total()}


def _tensor_kind(tensor: TensorEntry) -> str:
    from mmfree_compiler.program import TABLE

    if _is_ternary(tensor):
        return TERNARY
    return EMBEDDING if tensor.layout == TABLE else VECTORS


def _variant_here(manifest: Manifest) -> str | None:
    """The variant that this runtime runs on this machine."""
    from mmfree_compiler.runtime.cpu import ABI
    from mmfree_compiler.runtime.cpu_features import choose

    try:
        variant = choose(manifest.variants)
    except TargetError:
        return None
    return variant.name if variant.abi == ABI else None


def _overview(found: dict[str, Any]) -> Table:
    per_weight = found["bits_per_ternary_weight"]
    rows = (
        ("producer", found["producer"]),
        ("hashes", "every member's SHA-256 is right"),
        ("target", found["target"]),
        ("variants", ", ".join(found["variants"])),
        ("runs here with", _here(found)),
        ("layers", str(found["layers"])),
        ("parameters", f"{found['parameters']:,} ({found['ternary_parameters']:,} ternary)"),
        ("bits a ternary weight", f"{per_weight:.2f}" if per_weight else "none"),
        ("bits a parameter", f"{found['bits_per_parameter']:.2f}"),
        ("state a sequence", size(found["state_bytes_per_sequence"])),
        ("passes", " → ".join(found["passes"])),
    )
    return facts(rows)


def _here(found: dict[str, Any]) -> str:
    from mmfree_compiler.runtime.cpu import ABI

    name, conventions = found["variant_here"], found["calling_conventions"]
    if conventions and ABI not in conventions:
        listed = ", ".join(map(str, conventions))
        return f"none of them: calling convention {listed}, this runtime knows {ABI}"
    if name is None:
        return "none of them"
    settings = ", ".join(f"{key} {value}" for key, value in found["tuning"][name].items())
    return f"{name} ({settings})" if settings else name


def _memory(found: dict[str, Any]) -> Table:
    weights = found["weights_bytes"]
    parts = [(kind, size(nbytes)) for kind, nbytes in found["bytes"].items()]
    rivals = [
        (f"weights in {name}", f"{size(nbytes)}, {nbytes / weights:.1f} times as much")
        for name, nbytes in (("fp16", found["fp16_bytes"]), ("fp32", found["fp32_bytes"]))
        if weights
    ]
    rows = [*parts, ("file", size(found["file_bytes"])), ("weights here", size(weights)), *rivals]
    return facts(rows, "\nBytes")
