"""`mmfree inspect`: shows the contents of a compiled model without running it."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.table import Table

from mmfree_compiler.artifact import TOKENIZER as TOKENIZER_MEMBER
from mmfree_compiler.cli.options import ArtifactPath, Json, Signer
from mmfree_compiler.cli.output import emit
from mmfree_compiler.contents import Parameters, read_bytes, state_bytes
from mmfree_compiler.errors import TargetError, ToolchainError
from mmfree_compiler.tables import facts, grid, size
from mmfree_compiler.wording import printable

if TYPE_CHECKING:
    from mmfree_compiler.artifact import Artifact

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
    sizes = Parameters.of(artifact)
    return {
        "producer": manifest.producer,
        "kind": manifest.kind,
        "fingerprint": manifest.fingerprint,
        "arithmetic": manifest.arithmetic,
        "targets": [_describe_target(view) for view in artifact.targets],
        "layers": sizes.layers,
        "parameters": sizes.total,
        "ternary_parameters": sizes.ternary,
        "bytes": _bytes_by_kind(artifact, file_size),
        "file_bytes": file_size,
        "state_bytes_per_sequence": state_bytes(manifest),
        "fp16_bytes": None if sizes.total is None else 2 * sizes.total,
        "fp32_bytes": None if sizes.total is None else 4 * sizes.total,
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
        "weights_bytes": read_bytes(entry),
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
