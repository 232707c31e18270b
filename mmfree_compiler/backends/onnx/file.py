"""The form of a .onnx file: the model as it was compiled, then the rest of the artifact.

What follows the model are entries of `metadata_props`: its manifest, and perhaps its tokenizer. Two
protocol buffers, one behind the other, are one with the fields of both, so every reader of ONNX
sees a model with metadata. Constants above 2 GiB are in a file beside it, named by their hash.
"""

from __future__ import annotations

import hashlib
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
# The keys of metadata, in order; the last only with a tokenizer.
_MANIFEST_KEY, _HASH_KEY, _TOKENIZER_KEY = "mmfree.manifest", "mmfree.sha256", "mmfree.tokenizer"
_KEYS = (_MANIFEST_KEY, _HASH_KEY, _TOKENIZER_KEY)


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
        tokenizer = artifact.members.get(TOKENIZER)
        manifest = artifact.manifest.model_dump_json().encode()
        file.write(_metadata(manifest, None if tokenizer is None else tokenizer.tobytes()))


def _metadata(manifest: bytes, tokenizer: bytes | None) -> bytes:
    """What follows the model: the manifest, its SHA-256, and the tokenizer."""
    texts = [manifest, hashlib.sha256(manifest).hexdigest().encode()]
    texts += [] if tokenizer is None else [tokenizer]
    entries = [(key.encode(), text) for key, text in zip(_KEYS, texts, strict=False)]
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
    if _MANIFEST_KEY not in texts:
        cause = "is an ONNX model that was not made by this package, or was changed by another"
        hint = 'Compile it: mmfree_compiler.compile("model.onnx")'
        raise ArtifactError(str(path), cause, hint)
    tokenizer = texts.get(_TOKENIZER_KEY)
    if content[end:].tobytes() != _metadata(texts[_MANIFEST_KEY], tokenizer):
        raise ArtifactError(str(path), "its metadata are damaged (SHA-256)", REMAKE)
    manifest = parse_manifest(str(path), texts[_MANIFEST_KEY])
    members: dict[str, Bytes] = {WEIGHTS: np.empty(0, np.uint8), MEMBER: content[:end]}
    if tokenizer is not None:
        members[TOKENIZER] = np.frombuffer(tokenizer, np.uint8)
    constants = manifest.members.get(WEIGHTS)
    if constants is not None and constants.size:
        file = _mapped(path.with_name(data_name(constants.sha256)))
        members[WEIGHTS] = file.bytes
    artifact = Artifact(manifest, members, file)
    check_members(str(path), manifest, members, verify, artifact.copy)
    return artifact


def _parsed(content: Bytes) -> tuple[int, dict[str, bytes]]:
    """Where the model ends, and the texts behind it. Raises ValueError on malformed fields."""
    found = list(fields(content))
    entries = [entry for entry in found if entry.number == _METADATA]
    if not entries or found[-len(entries) :] != entries:
        return len(content), {}
    pairs = [_entry(content[entry.value : entry.end].tobytes()) for entry in entries]
    if tuple(key for key, _ in pairs) != _KEYS[: len(pairs)]:
        return len(content), {}
    return entries[0].start, dict(pairs)


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
