"""Choosing how densely to pack: 2 bits per weight if unpacking is the limit, 1.6 if reading is.

The choice depends on the CPUs that a variant is for, never on the machine that compiles. If
variants differ, the weights are packed both ways: each build reads one of the two, and the part of
the file that it does not read costs no memory.
"""

from __future__ import annotations

from dataclasses import dataclass

from mmfree_compiler.backends.cpu.layouts import TILE16_2BIT, TILE16_TRITS
from mmfree_compiler.backends.cpu.spec import AUTO, DENSITIES, Spec
from mmfree_compiler.backends.cpu.variants import VARIANTS
from mmfree_compiler.program import Program

# Weights up to this size stay in the last-level cache from token to token; others come from DRAM.
CACHE_BYTES = 24 << 20


@dataclass(frozen=True)
class Density:
    """The name of a variant's layout, and why it was chosen."""

    layout: str
    reason: str


def densities(program: Program, spec: Spec) -> dict[str, Density]:
    """The density of each variant of `spec`, by name."""
    return {variant: _density(program, spec, variant) for variant in spec.variants}


def _density(program: Program, spec: Spec, variant: str) -> Density:
    if spec.density != AUTO:
        return Density(DENSITIES[spec.density], f"{spec.density} bits per weight: asked for")
    size = _packed_bytes(program)
    megabytes = f"{size / 1e6:,.1f} MB of weights at 2 bits"
    if size <= CACHE_BYTES:
        return Density(TILE16_2BIT.name, f"2 bits per weight: {megabytes} stay in the cache")
    if not VARIANTS[variant].wide_lookup:
        why = "it unpacks five trits per byte more slowly than it reads two bits per weight"
        return Density(TILE16_2BIT.name, f"2 bits per weight: {why}")
    return Density(TILE16_TRITS.name, f"1.6 bits per weight: {megabytes} are read from DRAM")


def _packed_bytes(program: Program) -> int:
    weights = [c for c in program.constants.values() if c.role == "ternary"]
    return sum(TILE16_2BIT.nbytes(c.matrix_shape) * len(c.parts) for c in weights)
