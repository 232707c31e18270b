"""The identity of a compiled model, the same on every target: a hash of its Program."""

from __future__ import annotations

import hashlib

import numpy as np

from mmfree_compiler.elementary import ARITHMETIC
from mmfree_compiler.parallel import each
from mmfree_compiler.program import Array, Program
from mmfree_compiler.program_text import listing


def fingerprint(program: Program) -> str:
    """SHA-256, in hex, of a Program before any backend's passes: its text and its constants.

    The version of the arithmetic counts too: artifacts with equal fingerprints can exchange states,
    and every target continues them with the same bits.
    """
    parts = [part for constant in program.constants.values() for part in constant.parts]
    facts = [f"arithmetic {ARITHMETIC}\n{listing(program)}".encode(), *each(_digest, parts)]
    return hashlib.sha256(b"".join(facts)).hexdigest()


def _digest(part: Array) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(part).view(np.uint8).data).digest()
