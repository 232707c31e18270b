"""The instruction sets: one entry a variant, in the table ISAS."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from mmfree_compiler.backends.cpu.lookups import (
    avx2_lookup,
    avx512_lookup,
    neon_lookup,
    vbmi_lookup,
)
from mmfree_compiler.backends.cpu.products import Arithmetic, Dot, Maddubs, Product


@dataclass(frozen=True)
class Isa:
    """One variant: its LLVM target and how it multiplies.

    `token_blocks`: how many tokens a tile takes at once (as many accumulators as registers hold),
    largest first, ending in 1; none where `matrices`: there chunks of tokens go to AMX (amx.py),
    and single tokens do not. `wide_lookup`: one instruction reads a table of 64 bytes, so that
    unpacking five trits a byte keeps up with memory.
    """

    name: str
    llvm: Mapping[str, object]
    token_blocks: tuple[int, ...]
    product: Product = field(repr=False)
    wide_lookup: bool = False
    matrices: bool = False

    @property
    def triple(self) -> str:
        return str(self.llvm["mtriple"])


# One block for few tokens beats two: each unpacks the weights anew. Below 16, since TVM takes 1024
# bytes of accumulators and more from a workspace of its runtime, which is not there.
_WIDE = (12, 8, 6, 5, 4, 3, 2, 1)  # 32 registers
_NARROW = (4, 3, 2, 1)

_X86 = {"kind": "llvm", "mtriple": "x86_64-linux-gnu"}
_AVX512 = ["+avx512vnni", "-prefer-256-bit"]
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
            (),
            Dot(f"{_VNNI}.512", 64, True, vbmi_lookup),
            wide_lookup=True,
            matrices=True,
        ),
        Isa(
            "x86-64-avx512vbmi",
            _X86 | {"mcpu": "x86-64-v4", "mattr": [*_AVX512, "+avx512vbmi"]},
            _WIDE,
            Dot(f"{_VNNI}.512", 64, True, vbmi_lookup),
            wide_lookup=True,
        ),
        Isa(
            "x86-64-avx512vnni",
            _X86 | {"mcpu": "x86-64-v4", "mattr": _AVX512},
            _WIDE,
            Dot(f"{_VNNI}.512", 64, True, avx512_lookup),
        ),
        Isa(
            "x86-64-avxvnni",
            _X86 | {"mcpu": "x86-64-v3", "mattr": ["+avxvnni"]},
            _NARROW,
            Dot(f"{_VNNI}.256", 32, True, avx2_lookup),
        ),
        Isa("x86-64-v3", _X86 | {"mcpu": "x86-64-v3"}, _NARROW, Maddubs()),
        Isa("portable", _X86 | {"mcpu": "x86-64"}, _NARROW, Arithmetic()),
        Isa(
            "aarch64-i8mm",
            _AARCH64 | {"mattr": ["+dotprod", "+i8mm"]},
            _NARROW,
            Dot(_USDOT, 16, True, neon_lookup),
            wide_lookup=True,
        ),
        Isa(
            "aarch64-dotprod",
            _AARCH64 | {"mattr": ["+dotprod"]},
            _NARROW,
            Dot(_SDOT, 16, False, neon_lookup),
            wide_lookup=True,
        ),
        Isa("aarch64", _AARCH64, _NARROW, Arithmetic()),
    )
}
