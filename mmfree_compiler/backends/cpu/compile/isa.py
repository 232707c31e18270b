"""The instruction sets: one entry per variant, in the table ISAS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from mmfree_compiler.backends.cpu.compile.dots import Dot
from mmfree_compiler.backends.cpu.compile.lookups import (
    avx2_lookup,
    avx512_lookup,
    neon_lookup,
    vbmi_lookup,
)
from mmfree_compiler.backends.cpu.compile.pairs import Arithmetic, Maddubs
from mmfree_compiler.backends.cpu.compile.products import Product
from mmfree_compiler.backends.cpu.compile.tuning import Tuning

# Tokens per block: as many as registers hold accumulators for. One block beats two smaller ones,
# which unpack the weights twice. Below 16, since TVM allocates accumulators of 1024 bytes or more
# from a workspace of its runtime, which the libraries do not have.
BLOCKS = (15, 12, 8, 6, 5, 4, 3, 2, 1)
_WIDE = Tuning(tokens=12)  # 32 registers, each as wide as a block
_NARROW = Tuning(tokens=4)  # 16 registers, or registers a quarter as wide as a block


@dataclass(frozen=True)
class Isa:
    """One variant: its LLVM target and how it multiplies.

    `tuning`: the default settings. `matrices`: chunks of tokens, but not single tokens, go to AMX
    (amx.py). `keeps_digits`: blocks of tokens after the first load unpacked digits (kept.py).
    """

    name: str
    llvm: Mapping[str, object]
    product: Product = field(repr=False)
    tuning: Tuning = _WIDE
    matrices: bool = False
    keeps_digits: bool = False

    @property
    def triple(self) -> str:
        return str(self.llvm["mtriple"])

    @property
    def token_blocks(self) -> tuple[int, ...]:
        """How many tokens a tile takes at once, largest first."""
        return tuple(size for size in BLOCKS if size <= self.tuning.tokens)


_X86 = {"kind": "llvm", "mtriple": "x86_64-linux-gnu"}
_AVX512 = ["+avx512vnni", "-prefer-256-bit"]
# Otherwise LLVM splits chains of sums, and 16 registers cannot hold the partial sums.
_IN_ORDER = ["-x86-machine-combiner:bool=false"]
_AARCH64 = {"kind": "llvm", "mtriple": "aarch64-linux-gnu", "mcpu": "generic"}

_VNNI = "llvm.x86.avx512.vpdpbusd"
_SDOT, _USDOT = "llvm.aarch64.neon.sdot", "llvm.aarch64.neon.usdot"

_AMX = [*_AVX512, "+avx512vbmi", "+amx-tile", "+amx-int8"]

ISAS: dict[str, Isa] = {
    isa.name: isa
    for isa in (
        Isa(
            "x86-64-amx",
            _X86 | {"mcpu": "x86-64-v4", "mattr": _AMX},
            Dot(f"{_VNNI}.512", 64, True, vbmi_lookup),
            matrices=True,
        ),
        Isa(
            "x86-64-avx512vbmi",
            _X86 | {"mcpu": "x86-64-v4", "mattr": [*_AVX512, "+avx512vbmi"]},
            Dot(f"{_VNNI}.512", 64, True, vbmi_lookup),
        ),
        Isa(
            "x86-64-avx512vnni",
            _X86 | {"mcpu": "x86-64-v4", "mattr": _AVX512},
            Dot(f"{_VNNI}.512", 64, True, avx512_lookup),
        ),
        Isa(
            "x86-64-avxvnni",
            _X86 | {"mcpu": "x86-64-v3", "mattr": ["+avxvnni"]},
            Dot(f"{_VNNI}.256", 32, True, avx2_lookup, registers=12),
            _NARROW,
            keeps_digits=True,
        ),
        Isa(
            "x86-64-v3",
            _X86 | {"mcpu": "x86-64-v3", "cl-opt": _IN_ORDER},
            Maddubs(),
            _NARROW,
            keeps_digits=True,
        ),
        Isa("portable", _X86 | {"mcpu": "x86-64"}, Arithmetic(), _NARROW),
        Isa(
            "aarch64-i8mm",
            _AARCH64 | {"mattr": ["+dotprod", "+i8mm"]},
            Dot(_USDOT, 16, True, neon_lookup),
            _NARROW,
        ),
        Isa(
            "aarch64-dotprod",
            _AARCH64 | {"mattr": ["+dotprod"]},
            Dot(_SDOT, 16, False, neon_lookup),
            _NARROW,
        ),
        Isa("aarch64", _AARCH64, Arithmetic(), _NARROW),
    )
}


def tuned(name: str, tuning: Tuning) -> Isa:
    """The instruction set `name` with other settings."""
    return replace(ISAS[name], tuning=tuning)
