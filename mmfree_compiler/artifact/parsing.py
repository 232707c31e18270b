"""Checking what an artifact holds: its manifest, and its members against it."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping

from pydantic import BaseModel, ValidationError

from mmfree_compiler.artifact.manifest import MANIFEST, SCHEMA_VERSION, WEIGHTS, Manifest
from mmfree_compiler.artifact.mapped import Bytes, sha256
from mmfree_compiler.artifact.weights import Copy
from mmfree_compiler.elementary import ARITHMETIC
from mmfree_compiler.errors import ArtifactError

REMAKE = "Get or compile the file again"


class _Version(BaseModel):
    """The one field that every schema has."""

    schema_version: int


def parse_manifest(thing: str, text: bytes) -> Manifest:
    """The manifest in `text`. Raises ArtifactError when it is invalid, or of another version."""
    try:
        found = _Version.model_validate_json(text, strict=True).schema_version
        if found != SCHEMA_VERSION:
            cause = f"has schema version {found}, this runtime reads {SCHEMA_VERSION}"
            hint = (
                "Upgrade mmfree-compiler" if found > SCHEMA_VERSION else "Compile the model again"
            )
            raise ArtifactError(thing, cause, hint)
        manifest = Manifest.model_validate_json(text, strict=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"])) or MANIFEST
        cause = f"has an invalid manifest: {where}: {first['msg']}"[:400]
        raise ArtifactError(thing, cause, REMAKE) from error
    if manifest.arithmetic > ARITHMETIC:
        cause = f"follows arithmetic {manifest.arithmetic}, this runtime knows {ARITHMETIC}"
        raise ArtifactError(thing, cause, "Upgrade mmfree-compiler")
    return manifest


def check_members(
    thing: str, manifest: Manifest, members: Mapping[str, Bytes], verify: bool, copy: Copy
) -> None:
    """Raise ArtifactError unless `members` are those of the manifest; `copy` reads weights.bin.

    `verify` checks the SHA-256 of weights.bin too.
    """
    if members.keys() != manifest.members.keys():
        odd = ", ".join(sorted(members.keys() ^ manifest.members.keys()))[:200]
        raise ArtifactError(thing, f"manifest and members differ: {odd}", REMAKE)
    for name, member in manifest.members.items():
        if members[name].size != member.size:
            cause = f"{name} is {members[name].size} bytes, the manifest says {member.size}"
            raise ArtifactError(thing, cause, REMAKE)
        if name == WEIGHTS and not verify:
            continue
        data = members[name]
        digest = sha256(data, copy) if name == WEIGHTS else hashlib.sha256(data.data)
        if digest.hexdigest() != member.sha256:
            raise ArtifactError(thing, f"{name} is damaged (SHA-256)", REMAKE)
