"""The artifact: a manifest and its members, built in memory or mapped from model.mmfree."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ValidationError

from mmfree_compiler.artifact.archive import read_archive, write_archive
from mmfree_compiler.artifact.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    WEIGHTS,
    Manifest,
    Member,
    TensorEntry,
)
from mmfree_compiler.artifact.mapped import Bytes, MappedFile
from mmfree_compiler.artifact.weights import Array, Copy, Table, read_tensor
from mmfree_compiler.errors import ArtifactError

_MAX_MANIFEST = 1 << 24  # bytes; the manifest of a 24-layer model takes some ten thousand
_PIECE = 1 << 20  # bytes that are hashed at once
_REMAKE = "Get or compile the file again"


@dataclass(frozen=True)
class Artifact:
    """A compiled model: `members` (1-D uint8 each) are all files but the manifest.

    `file` is the mapped file that they are views of, None when they were built in memory.
    """

    manifest: Manifest
    members: Mapping[str, Bytes] = field(repr=False)
    file: MappedFile | None = field(default=None, repr=False)

    @classmethod
    def build(cls, members: Mapping[str, bytes | Bytes], **fields: Any) -> Artifact:
        """An artifact of `members`; `fields` are the Manifest's, except what is computed here.

        Computed: the table of members with sizes and hashes, the schema version, the producer.
        Raises pydantic.ValidationError when the fields contradict each other or the members.
        """
        arrays = {name: np.frombuffer(data, np.uint8) for name, data in members.items()}
        table = {
            name: Member(size=data.size, sha256=hashlib.sha256(data.data).hexdigest())
            for name, data in arrays.items()
        }
        producer = f"mmfree-compiler {version('mmfree-compiler')}"
        return cls(Manifest(producer=producer, members=table, **fields), arrays)

    def save(self, path: str | PathLike[str]) -> None:
        """Write model.mmfree: under a temporary name first, so that `path` is never half a file.

        Equal artifacts make equal bytes. Raises ArtifactError when it cannot be written.
        """
        manifest = self.manifest.model_dump_json(indent=1).encode()
        data = np.frombuffer(manifest, np.uint8)
        write_archive(Path(path), {MANIFEST: data, **self.members})

    def tensor(self, name: str) -> Array:
        """Constant `name`, a view of weights.bin, its parts (loop iterations) first.

        Dense: (count, *shape), bfloat16 as its uint16 bits. Packed: (count, bytes a part) uint8.
        Raises ArtifactError when there is none.
        """
        return read_tensor(self.members[WEIGHTS], self._entry(name))

    def table(self, name: str) -> Table:
        """Constant `name`, of layout "table", to read rows of. Raises ArtifactError without one."""
        entry = self._entry(name)
        parts = read_tensor(self.members[WEIGHTS], entry).view(np.uint8)
        return Table(parts.reshape(entry.count, entry.shape[0], -1), self.copy)

    def copy(self, part: Bytes, out: Bytes) -> None:
        """Copy `part`, a contiguous view of a member, to `out`, and have no page of it mapped.

        Raises ArtifactError when the file cannot be read.
        """
        if self.file is None:
            out[:] = part
        else:
            self.file.copy(part, out)

    def _entry(self, name: str) -> TensorEntry:
        entry = self.manifest.tensors.get(name)
        if entry is None:
            raise ArtifactError(f"tensor {name!r}", "is not in the artifact", _REMAKE)
        return entry


def read_artifact(path: str | PathLike[str], verify: bool = False) -> Artifact:
    """Map model.mmfree; members are read-only views of the file, 64-byte aligned.

    Structure, schema, sizes and offsets are always checked, and the SHA-256 of every member that is
    parsed or executed. `verify` checks weights.bin too, for which it reads all of it: else weights
    are read as they are used, and damage there changes numbers and nothing more. Raises
    ArtifactError on any file that is not a whole, sound artifact.
    """
    path = Path(path)
    archive = read_archive(path, crc={MANIFEST})
    members = archive.members
    if MANIFEST not in members or members[MANIFEST].size > _MAX_MANIFEST:
        raise ArtifactError(str(path), f"has no {MANIFEST} of sensible size", _REMAKE)
    manifest = _parse_manifest(str(path), members.pop(MANIFEST).tobytes())
    artifact = Artifact(manifest, members, archive.file)
    _check_members(str(path), artifact, verify)
    return artifact


class _Version(BaseModel):
    """The one field that every schema has."""

    schema_version: int


def _parse_manifest(thing: str, text: bytes) -> Manifest:
    try:
        found = _Version.model_validate_json(text, strict=True).schema_version
        if found > SCHEMA_VERSION:
            cause = f"has schema version {found}, this runtime reads {SCHEMA_VERSION}"
            raise ArtifactError(thing, cause, "Upgrade mmfree-compiler")
        return Manifest.model_validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or MANIFEST
        cause = f"has a wrong manifest: {where}: {first['msg']}"[:400]
        raise ArtifactError(thing, cause, _REMAKE) from error


def _check_members(thing: str, artifact: Artifact, verify: bool) -> None:
    manifest, members = artifact.manifest, artifact.members
    if members.keys() != manifest.members.keys():
        odd = ", ".join(sorted(members.keys() ^ manifest.members.keys()))[:200]
        raise ArtifactError(thing, f"manifest and members differ: {odd}", _REMAKE)
    for name, member in manifest.members.items():
        if members[name].size != member.size:
            raise ArtifactError(thing, f"{name} has not the size that the manifest says", _REMAKE)
        if name == WEIGHTS and not verify:
            continue
        if _sha256(members[name], artifact.copy) != member.sha256:
            raise ArtifactError(thing, f"{name} is damaged (SHA-256)", _REMAKE)


def _sha256(member: Bytes, copy: Copy) -> str:
    """In hex, of pieces that are copied: mapped ones would all stay resident."""
    digest, room = hashlib.sha256(), np.empty(min(_PIECE, member.size), np.uint8)
    for start in range(0, member.size, _PIECE):
        piece = member[start : start + _PIECE]
        copy(piece, room[: piece.size])
        digest.update(room[: piece.size].data)
    return digest.hexdigest()
