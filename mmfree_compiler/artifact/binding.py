"""Binding native code to its manifest, so that kernels never run on what they were not made for.

A kernel takes offsets, sizes and strides for granted: a manifest that says otherwise would make it
read and write somewhere else. So every library carries the SHA-256 of the manifest that it was put
in an artifact with, as an ELF note (gABI chapter 5, "Note Section"). It is read from the bytes of
the file: nothing of a library is executed before its note was compared.
"""

from __future__ import annotations

import hashlib
import json
import struct

from mmfree_compiler.artifact.manifest import Manifest
from mmfree_compiler.errors import ArtifactError

SIZE = hashlib.sha256().digest_size
_OWNER = b"mmfree\0"
# What stands before the hash: the sizes of the owner's name and of the hash, a type, the name.
NOTE = struct.pack("<3L8s", len(_OWNER), SIZE, 1, _OWNER)


def digest(manifest: Manifest) -> bytes:
    """The SHA-256 of all that a manifest says, but for the hashes of the files of its builds.

    These files hold the result. Two manifests that differ in spelling only have one digest. Fields
    at their defaults are left out: a later version may have more fields.
    """
    said = manifest.model_dump(mode="json", exclude_defaults=True)
    for entry in manifest.targets:
        for member in entry.own_members:
            said["members"][member]["sha256"] = None
    text = json.dumps(said, sort_keys=True, allow_nan=False)
    return hashlib.sha256(text.encode()).digest()


def bound(code: bytes, value: bytes) -> bytes:
    """`code` with the digest `value` in its note; code without a note stays as it is."""
    start, end = _place(code)
    return code[:start] + value + code[end:] if start else code


def check(thing: str, code: bytes, manifest: Manifest) -> None:
    """Raise ArtifactError unless the note in `code` is the digest of `manifest`."""
    start, end = _place(code)
    if not start or code[start:end] != digest(manifest):
        cause = "was not made for this manifest: one of them was changed"
        raise ArtifactError(thing, cause, "Get or compile the file again")


def _place(code: bytes) -> tuple[int, int]:
    """Where the hash is in `code`; (0, 0) if there is no note, or no whole one."""
    start = code.find(NOTE) + len(NOTE)
    whole = start >= len(NOTE) and start + SIZE <= len(code)
    return (start, start + SIZE) if whole else (0, 0)
