"""How densely to pack: 2 bits a weight where unpacking is the limit, 1.6 where reading is."""

from __future__ import annotations

from mmfree_compiler.backends import Choice, Density
from mmfree_compiler.backends.cpu.isa import ISAS
from mmfree_compiler.errors import InputError
from mmfree_compiler.layouts import LAYOUTS, TILE16_2BIT, TILE16_TRITS
from mmfree_compiler.program import Program
from mmfree_compiler.runtime.cpu_features import VARIANTS, lacks
from mmfree_compiler.target import Target

# What the last level of a cache keeps from one token to the next; larger weights come from DRAM.
CACHE_BYTES = 24 << 20


def choose_layout(program: Program, target: Target, density: Density) -> Choice:
    """The layout of `density` bits a weight; "auto" decides by where the weights will live.

    Raises InputError when no layout has that density.
    """
    by_bits = {layout.bits: layout for layout in LAYOUTS.values()}
    if density != "auto":
        if density not in by_bits:
            known = ", ".join(f"{bits:g}" for bits in sorted(by_bits))
            raise InputError(f"density {density!r}", "no layout has it", f"Known: auto, {known}")
        return Choice(by_bits[density].name, f"{density:g} bits a weight: asked for")
    size = _packed_bytes(program)
    megabytes = f"{size / 1e6:,.1f} MB of weights at 2 bits"
    if size <= CACHE_BYTES:
        return Choice(TILE16_2BIT.name, f"2 bits a weight: {megabytes} stay in the cache")
    variant = _variant_here(target)
    if not ISAS[variant].wide_lookup:
        why = f"{variant} unpacks five trits a byte more slowly than it reads two bits a weight"
        return Choice(TILE16_2BIT.name, f"2 bits a weight: {why}")
    return Choice(TILE16_TRITS.name, f"1.6 bits a weight: {megabytes} are read from DRAM")


def _packed_bytes(program: Program) -> int:
    weights = {node.inputs[2] for node in program.nodes() if node.op == "ternary_linear"}
    constants = (program.constants[name] for name in weights if name)
    return sum(TILE16_2BIT.nbytes(c.matrix_shape) * len(c.parts) for c in constants)


def _variant_here(target: Target) -> str:
    """The variant that this machine would run, or the best one when it runs none."""
    runnable = (name for name in target.variants if not lacks(VARIANTS[name]))
    return next(runnable, target.variants[0])
