"""model.mmfree: one ZIP file of a manifest, mapped weights, kernels and perhaps a tokenizer.

An artifact may hold native code: loading one is like running a program. Load only artifacts that
you trust: the checks here find damage and malformed files, but do not make hostile kernels safe.
"""

from mmfree_compiler.artifact.archive import (
    as_path,
    check_writable,
    read_archive,
    replacing,
    write_archive,
)
from mmfree_compiler.artifact.entries import (
    Build,
    Member,
    Notes,
    Port,
    StateEntry,
    TargetEntry,
    TensorEntry,
)
from mmfree_compiler.artifact.file import Artifact, read_artifact
from mmfree_compiler.artifact.manifest import (
    MANIFEST,
    SCHEMA_VERSION,
    STATE,
    TOKENIZER,
    WEIGHTS,
    Manifest,
)
from mmfree_compiler.artifact.signature import Key, sign
from mmfree_compiler.artifact.weights import ALIGNMENT, aligned_empty, pack_constants

__all__ = [
    "ALIGNMENT",
    "MANIFEST",
    "SCHEMA_VERSION",
    "STATE",
    "TOKENIZER",
    "WEIGHTS",
    "Artifact",
    "Build",
    "Key",
    "Manifest",
    "Member",
    "Notes",
    "Port",
    "StateEntry",
    "TargetEntry",
    "TensorEntry",
    "aligned_empty",
    "as_path",
    "check_writable",
    "pack_constants",
    "read_archive",
    "read_artifact",
    "replacing",
    "sign",
    "write_archive",
]
