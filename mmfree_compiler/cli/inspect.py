"""`mmfree inspect`: shows the contents of a compiled model without running it."""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from mmfree_compiler.artifact import TOKENIZER as TOKENIZER_MEMBER
from mmfree_compiler.cli.options import ArtifactPath, Json, Signer
from mmfree_compiler.cli.output import emit, facts, grid, size
from mmfree_compiler.errors import TargetError, ToolchainError
from mmfree_compiler.wording import printable

if TYPE_CHECKING:
    from mmfree_compiler.artifact import Artifact, Manifest, TargetEntry, TensorEntry

TERNARY, EMBEDDING, VECTORS = "packed ternary", "embedding", "norms, scales, biases"
CODE, TOKENIZER, REST = "code", "tokenizer", "manifest, alignment"


def inspect(
    model: ArtifactPath,
    notes: Annotated[
        bool, typer.Option("--notes", help="Also show what each pass did, node by node.")
    ] = False,
    require_signature: Signer = None,
    json: Json = False,
) -> None:
    """Show the contents of a compiled model: targets, builds, passes, sizes, memory use."""
    from mmfree_compiler.backends import files

    artifact = files.read(model, True, require_signature)
    # That raises an error if a hash is wrong.
    signed = {"signed_by": artifact.signer, "signature_verified": require_signature is not None}
    document = {"verified": True} | signed | describe(artifact, model.stat().st_size)
    listed = artifact.manifest.all_notes if notes else ()
    if notes:
        document["notes"] = listed
    tables = [_overview(document), *map(_target, document["targets"]), _memory(document)]
    tables += [grid("Notes", ("pass", "node", "note"), listed)] if notes else []
    emit(json, document, *tables)


def describe(artifact: Artifact, file_size: int) -> dict[str, Any]:
    """The facts of an artifact whose file has `file_size` bytes, ready for JSON."""
    manifest = artifact.manifest
    # All targets have the same constants, laid out in different ways, if not in files of their own.
    constants = next((t for t in artifact.manifest.targets if t.tensors), artifact.entry)
    ternary, others = _elements(_ternary(constants)), _elements(_others(constants))
    parameters = ternary + others - _tied(manifest)
    return {
        "producer": manifest.producer,
        "kind": manifest.kind,
        "fingerprint": manifest.fingerprint,
        "arithmetic": manifest.arithmetic,
        "targets": [_describe_target(view) for view in artifact.targets],
        "layers": manifest.model.get("num_hidden_layers")
        or max((tensor.count for tensor in constants.tensors.values()), default=0),
        # Unknown where all targets keep their constants in files of their own.
        "parameters": parameters if constants.tensors else None,
        "ternary_parameters": ternary if constants.tensors else None,
        "bytes": _bytes_by_kind(artifact, file_size),
        "file_bytes": file_size,
        "state_bytes_per_sequence": 4 * sum(math.prod(s.shape) * s.count for s in manifest.states),
        "fp16_bytes": 2 * parameters if constants.tensors else None,
        "fp32_bytes": 4 * parameters if constants.tensors else None,
        "passes": manifest.passes,
        "model": manifest.model,
        "quantization": manifest.quantization,
    }


def _describe_target(view: Artifact) -> dict[str, Any]:
    entry = view.entry
    return {
        "target": entry.target,
        "builds": [build.model_dump() for build in entry.builds],
        "about": _about(view),
        "weights_bytes": _read_bytes(entry),
        "passes": entry.passes,
    }


def _about(artifact: Artifact) -> dict[str, str]:
    """What the target says; the rest is known without a backend for it."""
    from mmfree_compiler import backends

    try:
        backend = backends.get(artifact.entry.kind)
    except (TargetError, ToolchainError) as error:
        names = ", ".join(build.name for build in artifact.entry.builds)
        return {"builds": names, "runs here with": f"none of them: {error}"}
    return dict(backend.describe(artifact))


def _ternary(entry: TargetEntry) -> list[TensorEntry]:
    """The ternary weights, in the layout that takes the fewest bytes where there are several."""
    tensors = [tensor for tensor in entry.tensors.values() if tensor.role == "ternary"]
    layouts: dict[str, list[TensorEntry]] = {}
    for tensor in tensors:
        layouts.setdefault(tensor.layout, []).append(tensor)
    return min(layouts.values(), key=lambda listed: sum(t.nbytes for t in listed), default=[])


def _others(entry: TargetEntry) -> list[TensorEntry]:
    return [tensor for tensor in entry.tensors.values() if tensor.role != "ternary"]


def _elements(tensors: list[TensorEntry]) -> int:
    """Parameters among the tensors; scales, one number per tensor, are not counted."""
    return sum(tensor.elements for tensor in tensors if tensor.elements > tensor.count)


def _read_bytes(entry: TargetEntry) -> int:
    """Bytes of all constants, each in one layout."""
    return sum(tensor.nbytes for tensor in (*_ternary(entry), *_others(entry)))


def _tied(manifest: Manifest) -> int:
    """Elements that are stored twice: a tied head is stored as the embedding and packed."""
    shape = [manifest.model.get(key) for key in ("vocab_size", "hidden_size")]
    sizes = [size for size in shape if isinstance(size, int)]
    tied = manifest.model.get("tie_word_embeddings") and len(sizes) == len(shape)
    return math.prod(sizes) if tied else 0


# role of a tensor -> the kind of its bytes
_KINDS = {"ternary": TERNARY, "table": EMBEDDING, "taps": VECTORS, "row": VECTORS}


def _bytes_by_kind(artifact: Artifact, file_size: int) -> dict[str, int]:
    manifest = artifact.manifest
    found = Counter({TERNARY: 0, EMBEDDING: 0, VECTORS: 0, CODE: 0, TOKENIZER: 0})
    stored = {  # a constant of several targets is stored once
        entry.offset + tensor.offset: tensor
        for entry in manifest.targets
        for tensor in entry.tensors.values()
    }
    for tensor in stored.values():
        found[_KINDS[tensor.role]] += tensor.nbytes
    code = {name for entry in manifest.targets for name in entry.own_members}
    for name, member in manifest.members.items():
        if name in code:
            found[CODE] += member.size
        elif name == TOKENIZER_MEMBER:
            found[TOKENIZER] += member.size
    return {**found, REST: file_size - found.total()}


def _overview(found: dict[str, Any]) -> Table:
    rows = (
        ("producer", found["producer"]),
        ("hashes", "the SHA-256 of every member matches"),
        ("signature", _signature(found["signed_by"], found["signature_verified"])),
        ("layers", str(found["layers"])),
        *_parameters(found),
        ("state per sequence", size(found["state_bytes_per_sequence"])),
        ("passes", " → ".join(found["passes"])),
    )
    return facts(rows)


def _parameters(found: dict[str, Any]) -> list[tuple[str, str]]:
    if found["parameters"] is None:
        return []
    return [("parameters", f"{found['parameters']:,} ({found['ternary_parameters']:,} ternary)")]


def _target(found: dict[str, Any]) -> Table:
    rows = [*found["about"].items(), ("passes", " → ".join(found["passes"]))]
    return facts(rows, f"\nTarget {printable(found['target'])}")


def _signature(signer: str | None, verified: bool) -> str:
    """Whoever wrote the file may have put any key there, so what was not verified says so."""
    if signer is None:
        return "none"
    how = "verified" if verified else "not verified: --require-signature PEM does that"
    return f"by {signer} ({how})"


def _memory(found: dict[str, Any]) -> Table:
    weights = ((target["target"], target["weights_bytes"]) for target in found["targets"])
    read = [(target, nbytes) for target, nbytes in weights if nbytes]
    parts = [(kind, size(nbytes)) for kind, nbytes in found["bytes"].items() if nbytes]
    others = [
        (f"weights in {name}", f"{size(nbytes)}, {_times(nbytes, read)} times as much")
        for name, nbytes in (("fp16", found["fp16_bytes"]), ("fp32", found["fp32_bytes"]))
        if read
    ]
    reads = [(f"read by {target}", size(nbytes)) for target, nbytes in read]
    rows = [*parts, ("file", size(found["file_bytes"])), *reads, *others]
    return facts(rows, "\nBytes")


def _times(nbytes: int, read: list[tuple[str, int]]) -> str:
    return " and ".join(f"{nbytes / weights:.1f}" for _, weights in read)
