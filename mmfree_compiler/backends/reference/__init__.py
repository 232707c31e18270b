"""Reference backend: runs each op's own reference in torch. For tests and for `verify`."""

from __future__ import annotations

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends import Backend, Choice, Density, Details
from mmfree_compiler.backends.describe import describe
from mmfree_compiler.backends.reference.launcher import ReferenceLauncher
from mmfree_compiler.ops import OPS
from mmfree_compiler.program import Program
from mmfree_compiler.target import Target


def emit(program: Program, target: Target, details: Details) -> Artifact:
    """An artifact without weights or kernels: it says what the program is, and cannot be saved."""
    members: dict[str, bytes] = {"weights.bin": b""}
    if details.tokenizer is not None:
        members["tokenizer.json"] = details.tokenizer
    return Artifact.build(members, **describe(program, target, details))


# A Backend's `layout`: here it is the same whatever is asked.
def _unpacked(program: Program, target: Target, density: Density) -> Choice:  # noqa: ARG001
    return Choice(None, "codes stay as they are")


_LOWERED = frozenset(name for name, op in OPS.items() if op.kind != "compound")
BACKEND = Backend("reference", _LOWERED, _unpacked, emit, ReferenceLauncher)
