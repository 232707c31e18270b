"""model.mmfree: one ZIP file of a manifest, mapped weights, kernels and perhaps a tokenizer.

A cpu artifact holds native code: loading it is running a program. Load only what you trust; the
checks here find damage and refuse malformed files, they do not make hostile kernels safe.
"""

from mmfree_compiler.artifact.archive import check_writable, read_archive, replacing, write_archive
from mmfree_compiler.artifact.file import Artifact, read_artifact
from mmfree_compiler.artifact.manifest import (
    SCHEMA_VERSION,
    Manifest,
    Member,
    MemoryPlan,
    Port,
    StatePart,
    TensorEntry,
    Variant,
)
from mmfree_compiler.artifact.weights import ALIGNMENT, aligned_empty, pack_constants

__all__ = [
    "ALIGNMENT",
    "SCHEMA_VERSION",
    "Artifact",
    "Manifest",
    "Member",
    "MemoryPlan",
    "Port",
    "StatePart",
    "TensorEntry",
    "Variant",
    "aligned_empty",
    "check_writable",
    "pack_constants",
    "read_archive",
    "read_artifact",
    "replacing",
    "write_archive",
]
