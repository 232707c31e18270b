"""Facts about an FPGA artifact for `mmfree inspect`, and its programs as text."""

from __future__ import annotations

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.fpga.facts import read_facts
from mmfree_compiler.backends.fpga.isa.assembly import disassemble
from mmfree_compiler.backends.fpga.isa.encoding import decode_program
from mmfree_compiler.backends.fpga.isa.word import WORD_BYTES


def describe(artifact: Artifact) -> dict[str, str]:
    """The board, the bits per weight, the most tokens of a run, and the sizes of the programs.

    Raises ArtifactError when facts are wrong.
    """
    found: dict[str, str] = {}
    for build in artifact.entry.builds:
        facts = read_facts(build)
        found["board"] = facts.board.title
        found["bits per ternary weight"] = facts.density
        found["tokens at once"] = f"up to {facts.tokens}"
        for role, member in build.members.items():
            words = artifact.members[member].size // WORD_BYTES
            found[f"{role} program"] = f"{words} instructions"
    return found


def listing(artifact: Artifact) -> dict[str, str]:
    """The text of each program. Raises ArtifactError on malformed words."""
    return {
        role: disassemble(decode_program(artifact.members[member]))
        for build in artifact.entry.builds
        for role, member in build.members.items()
    }
