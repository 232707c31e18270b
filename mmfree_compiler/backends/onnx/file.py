"""The form of a .onnx file: the model as it was compiled, then the rest of the artifact.

What follows the model are entries of `metadata_props`: its manifest, and perhaps its tokenizer. Two
protocol buffers, one behind the other, are one with the fields of both, so every reader of ONNX
sees a model with metadata. Constants above 2 GiB are in a file beside it, named by their hash.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from mmfree_compiler.artifact import TOKENIZER, WEIGHTS, Artifact, replacing
from mmfree_compiler.artifact.archive import writable
from mmfree_compiler.artifact.mapped import Bytes, MappedFile
from mmfree_compiler.artifact.parsing import REMAKE, check_members, parse_manifest
from mmfree_compiler.backends.onnx.facts import MODEL
from mmfree_compiler.backends.onnx.protobuf import field, fields
from mmfree_compiler.errors import ArtifactError

SUFFIX, MEMBER = ".onnx", "model.onnx"
_METADATA = 14  # field of ModelProto
_KEY, _VALUE = 1, 2  # fields of its entries
# Members of the artifact -> keys of metadata, in order.
_KEYS = {"manifest.json": "mmfree.manifest", TOKENIZER: "mmfree.tokenizer"}


def data_name(sha256: str) -> str:
    """The file of constants with this hash, in the folder of the model."""
    return f"{sha256[:16]}.weights"


def write(artifact: Artifact, path: Path) -> None:
    """Write an artifact of this target alone to `path`. Raises ArtifactError."""
    artifact.check_unchanged()
    (build,) = artifact.entry.builds
    if artifact.weights.size:
        data = path.with_name(data_name(artifact.manifest.members[WEIGHTS].sha256))
        with writable(data), replacing(data) as file:
            file.write(artifact.weights.data)
    with writable(path), replacing(path) as file:
        file.write(artifact.members[build.members[MODEL]].data)
        file.write(_metadata(artifact))


def _metadata(artifact: Artifact) -> bytes:
    texts = {"manifest.json": artifact.manifest.model_dump_json().encode()}
    if TOKENIZER in artifact.members:
        texts[TOKENIZER] = artifact.members[TOKENIZER].tobytes()
    entries = [(_KEYS[member].encode(), text) for member, text in texts.items()]
    return b"".join(field(_METADATA, field(_KEY, k) + field(_VALUE, v)) for k, v in entries)


def read(path: Path, verify: bool) -> Artifact:
    """The artifact in a .onnx file that `write` wrote. Raises ArtifactError on any other.

    `verify` checks the SHA-256 of the file of constants too.
    """
    file = _mapped(path)
    content = file.copied(file.bytes)
    try:
        end, texts = _parsed(content)
    except ValueError as error:
        raise ArtifactError(str(path), f"is not an ONNX model: {error}", REMAKE) from error
    if "manifest.json" not in texts:
        cause = "is an ONNX model that was not made by this package, or was changed by another"
        raise ArtifactError(str(path), cause, REMAKE)
    manifest = parse_manifest(str(path), texts.pop("manifest.json"))
    members: dict[str, Bytes] = {WEIGHTS: np.empty(0, np.uint8), MEMBER: content[:end]}
    members |= {name: np.frombuffer(text, np.uint8) for name, text in texts.items()}
    constants = manifest.members.get(WEIGHTS)
    if constants is not None and constants.size:
        file = _mapped(path.with_name(data_name(constants.sha256)))
        members[WEIGHTS] = file.bytes
    artifact = Artifact(manifest, members, file)
    check_members(str(path), manifest, members, verify, artifact.copy)
    return artifact


def _parsed(content: Bytes) -> tuple[int, dict[str, bytes]]:
    """Where the model ends, and the members behind it. Raises ValueError on malformed fields."""
    found = list(fields(content))
    entries = [entry for entry in found if entry.number == _METADATA]
    if not entries or found[-len(entries) :] != entries:
        return len(content), {}
    pairs = [_entry(content[entry.value : entry.end].tobytes()) for entry in entries]
    names = {key: member for member, key in _KEYS.items()}
    if [key for key, _ in pairs] != list(_KEYS.values())[: len(pairs)]:
        return len(content), {}
    return entries[0].start, {names[key]: text for key, text in pairs}


def _entry(data: bytes) -> tuple[str, bytes]:
    values: Mapping[int, bytes] = {f.number: data[f.value : f.end] for f in fields(data)}
    return values.get(_KEY, b"").decode(errors="replace"), values.get(_VALUE, b"")


def _mapped(path: Path) -> MappedFile:
    """The file at `path`. Raises ArtifactError unless it is a regular file with something in it."""
    try:
        if not path.is_file():  # opening a pipe would wait forever
            cause = "is not a regular file" if path.exists() else "does not exist"
            raise ArtifactError(str(path), cause, "Check the path")
        with path.open("rb") as file:
            if not path.stat().st_size:
                raise ArtifactError(str(path), "is empty", REMAKE)
            return MappedFile(str(path), file.fileno())
    except OSError as error:
        cause = f"cannot be read: {error.strerror or error}"
        raise ArtifactError(str(path), cause, "Check the path and its permissions") from error
