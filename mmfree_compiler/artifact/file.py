"""The artifact: a manifest and its members, built in memory or mapped from model.mmfree."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from os import PathLike
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np

from mmfree_compiler.artifact import binding, signature
from mmfree_compiler.artifact.archive import as_path, read_archive, write_archive
from mmfree_compiler.artifact.entries import Member, TargetEntry, TensorEntry
from mmfree_compiler.artifact.manifest import MANIFEST, STATE, WEIGHTS, Manifest
from mmfree_compiler.artifact.mapped import Bytes, MappedFile
from mmfree_compiler.artifact.parsing import REMAKE, check_members, parse_manifest
from mmfree_compiler.artifact.signature import Key
from mmfree_compiler.artifact.weights import Array, Table, aligned_empty, read_tensor
from mmfree_compiler.elementary import ARITHMETIC
from mmfree_compiler.errors import ArtifactError
from mmfree_compiler.program import Program
from mmfree_compiler.wording import printable

_MAX_MANIFEST = 1 << 24  # bytes; the manifest of a 24-layer model takes about ten thousand
_COMPUTED = {"schema_version", "producer", "members"}  # fields that Artifact.build fills
_PICKLED = "pickled artifact"


@dataclass(frozen=True, eq=False)
class Artifact:
    """A compiled model: `members` (1-D uint8 each) are all files but the manifest.

    It is seen as its target with this `number` sees it, the first unless said otherwise: `entry`,
    `weights`, `program` and the constants are this target's; `targets` has the other views.
    `file` is the mapped file that the members are views of, or None if they were built in memory.
    `programs` are what each target was compiled from, in this process only: they are not saved.
    `signer` is the public key, in hex, that the file says it is signed by, if it does.
    An artifact equals itself only. A pickled one holds the bytes of all members, whose SHA-256 is
    checked when it is read.
    """

    manifest: Manifest
    members: Mapping[str, Bytes] = field(repr=False)
    file: MappedFile | None = field(default=None, repr=False)
    programs: tuple[Program | None, ...] = field(default=(), repr=False)
    signer: str | None = None
    number: int = 0

    def __repr__(self) -> str:
        return f"Artifact({self.title})"

    @property
    def title(self) -> str:
        """The file that it was read from, if any, and what it is, in a few words."""
        read = f'"{printable(Path(self.file.thing).name)}": ' if self.file else ""
        return read + self.manifest.summary

    @classmethod
    def build(
        cls,
        members: Mapping[str, bytes | Bytes],
        programs: tuple[Program | None, ...] = (),
        **fields: Any,
    ) -> Artifact:
        """An artifact of `members`; `fields` are the fields of Manifest that are not computed here.

        Computed: the table of members with sizes and hashes, the schema version, the producer. The
        files of builds are bound to the manifest (binding.py). Raises pydantic.ValidationError when
        the fields contradict each other or the members.
        """
        arrays = {name: np.frombuffer(data, np.uint8) for name, data in members.items()}
        producer = f"mmfree-compiler {version('mmfree-compiler')}"
        table = {name: _member(data) for name, data in arrays.items()}
        fields = {"arithmetic": ARITHMETIC} | fields
        manifest = Manifest(producer=producer, members=table, **fields)
        digest = binding.digest(manifest)
        for name in {name for entry in manifest.targets for name in entry.own_members}:
            code = binding.bound(arrays[name].tobytes(), digest)
            arrays[name] = np.frombuffer(code, np.uint8)
            table[name] = _member(arrays[name])
        return cls(manifest.model_copy(update={"members": table}), arrays, programs=programs)

    def rebuilt(
        self,
        members: Mapping[str, bytes | Bytes],
        entry: Mapping[str, Any] = MappingProxyType({}),
        **changes: Any,
    ) -> Artifact:
        """This artifact with some other `members`, and `changes` to the fields of its manifest.

        `entry` has changes to the fields of this target's entry.
        """
        fields = {name: getattr(self.manifest, name) for name in Manifest.model_fields}
        given = {name: value for name, value in fields.items() if name not in _COMPUTED}
        targets = list(self.manifest.targets)
        targets[self.number] = TargetEntry(**dict(self.entry) | dict(entry))
        given |= {"targets": tuple(targets)} | changes
        return Artifact.build({**self.members, **members}, self.programs, **given)

    @property
    def targets(self) -> tuple[Artifact, ...]:
        """The artifact as each of its targets sees it, in order of preference."""
        return tuple(replace(self, number=n) for n in range(len(self.manifest.targets)))

    @property
    def entry(self) -> TargetEntry:
        """What the manifest says of this target."""
        return self.manifest.targets[self.number]

    @property
    def program(self) -> Program | None:
        """The Program of this target, in the process that compiled it."""
        return self.programs[self.number] if self.programs else None

    @property
    def weights(self) -> Bytes:
        """The constants of this target, 1-D uint8: a view of weights.bin, 64-byte aligned."""
        start = self.entry.offset
        return self.members[WEIGHTS][start : start + self.entry.nbytes]

    def check_unchanged(self) -> None:
        """Raise ArtifactError if the file that weights are mapped from was written to."""
        if self.file is not None:
            self.file.check_unchanged()

    def check_binding(self, member: str) -> None:
        """Raise ArtifactError unless `member`, native code, was made for this manifest."""
        binding.check(member, self.members[member].tobytes(), self.manifest)

    def __reduce__(self) -> tuple[Any, ...]:
        self.check_unchanged()
        # Not the path: where this is read, the file may be another one. A Program is left out
        # where builds run, since it holds all weights again and needs the compiler's packages.
        targets = zip(self.manifest.targets, self.programs, strict=False)
        programs = tuple(None if entry.builds else program for entry, program in targets)
        manifest = self.manifest.model_dump_json()
        return _unpickled, (manifest, dict(self.members), programs, self.number)

    def __deepcopy__(self, _: object) -> Artifact:
        return self  # nothing of it ever changes

    def save(self, path: str | PathLike[str]) -> None:
        """Write the artifact to `path`, completely or not at all.

        Equal artifacts give equal bytes. Raises ArtifactError if `path` cannot be written, or if
        the file that weights are mapped from was written to.
        """
        self.check_unchanged()
        manifest = self.manifest.model_dump_json(indent=1).encode()
        data = np.frombuffer(manifest, np.uint8)
        write_archive(as_path(path), {MANIFEST: data, **self.members})

    def tensor(self, name: str) -> Array:
        """Constant `name` as a view of `weights`; the first axis is its parts (loop iterations).

        Dense: (count, *shape), bfloat16 as uint16 bits. Packed: (count, bytes per part) uint8.
        Raises ArtifactError if there is no such constant.
        """
        return read_tensor(self.weights, self._tensor(name))

    def table(self, name: str) -> Table:
        """Constant `name` of role "table", to read rows from. Raises ArtifactError if absent."""
        entry = self._tensor(name)
        parts = read_tensor(self.weights, entry).view(np.uint8)
        return Table(parts.reshape(entry.count, entry.shape[0], -1), self.copy)

    def copy(self, part: Bytes, out: Bytes) -> None:
        """Copy `part`, a contiguous view of a member, to `out` without mapping its pages.

        Raises ArtifactError when the file cannot be read.
        """
        if self.file is None:
            out[:] = part
        else:
            self.file.copy(part, out)

    def _tensor(self, name: str) -> TensorEntry:
        entry = self.entry.tensors.get(name)
        if entry is None:
            raise ArtifactError(f"tensor {name!r}", "is not in the artifact", REMAKE)
        return entry


def read_artifact(
    path: str | PathLike[str], verify: bool = False, require_signature: Key | None = None
) -> Artifact:
    """Read model.mmfree. Members are read-only and 64-byte aligned; weights.bin is mapped.

    Structure, schema, sizes and offsets are always checked, and the SHA-256 of every member except
    weights.bin. `verify` checks weights.bin too, which reads all of it. Otherwise weights are read
    on use, and damage in them changes numbers but nothing else. `require_signature`, the public key
    of an Ed25519 pair in a PEM file or in its bytes, checks every byte of the file first. Raises
    ArtifactError if the file is not a complete, valid artifact, or not signed by that key.
    """
    path = as_path(path)
    _check_kind(path)
    archive = read_archive(path, crc={MANIFEST})
    if require_signature is not None:
        signature.check(archive, require_signature)
    members = archive.members
    if STATE in members:
        hint = "Name a compiled model; State.load reads this file in Python"
        raise ArtifactError(str(path), "is a saved state, not a model", hint)
    if MANIFEST not in members or members[MANIFEST].size > _MAX_MANIFEST:
        raise ArtifactError(str(path), f"has no {MANIFEST} of sensible size", REMAKE)
    # What is parsed or executed is copied first: a change of the file does not reach it any more.
    copied = {
        name: data if name == WEIGHTS else archive.file.copied(data)
        for name, data in members.items()
    }
    manifest = parse_manifest(str(path), copied.pop(MANIFEST).tobytes())
    artifact = Artifact(manifest, copied, archive.file, signer=signature.signer(archive))
    check_members(str(path), manifest, copied, verify, artifact.copy)
    return artifact


def _check_kind(path: Path) -> None:
    """Raise ArtifactError on what a model is compiled from."""
    if os.path.exists(path / "config.json"):  # raises nothing, unlike Path.exists
        hint = "Compile it: mmfree compile FOLDER -o model.mmfree"
        raise ArtifactError(str(path), "is a checkpoint folder, which is not compiled yet", hint)
    if path.suffix == ".safetensors":
        hint = "Compile its folder: mmfree compile FOLDER -o model.mmfree"
        raise ArtifactError(str(path), "holds weights of a checkpoint, not a compiled model", hint)


def _unpickled(
    manifest: str,
    members: Mapping[str, Bytes],
    programs: tuple[Program | None, ...],
    number: int,
) -> Artifact:
    """The artifact with its members in aligned memory, as kernels expect them.

    Raises ArtifactError when they are not what was pickled.
    """
    aligned = {name: aligned_empty(data.shape, np.uint8) for name, data in members.items()}
    for name, data in members.items():
        aligned[name][:] = data
    parsed = parse_manifest(_PICKLED, manifest.encode())
    artifact = Artifact(parsed, aligned, programs=programs, number=number)
    check_members(_PICKLED, parsed, aligned, True, artifact.copy)
    return artifact


def _member(data: Bytes) -> Member:
    return Member(size=data.size, sha256=hashlib.sha256(data.data).hexdigest())
