"""The instruction-set variants: their names, and the CPUs that each is for."""

from __future__ import annotations

import platform
from collections.abc import Collection
from dataclasses import dataclass
from typing import Protocol

# The levels of the x86-64 psABI, section 3.1.1: a compiler for a level may use all of its features.
_V2 = frozenset({"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"})
_V3 = _V2 | {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_VBMI = _V4 | {"avx512_vnni", "avx512_vbmi"}


class RequiresCpu(Protocol):
    """Code for CPUs of one architecture that have all of `features`.

    `arch` is spelled as in `uname -m`: "x86_64", "aarch64".
    """

    @property
    def name(self) -> str: ...
    @property
    def arch(self) -> str: ...
    @property
    def features(self) -> Collection[str]: ...


@dataclass(frozen=True)
class Variant:
    """A variant, the architecture it is for and the features it needs.

    `wide_lookup`: one instruction reads a table of 64 bytes, so that unpacking five trits per byte
    keeps up with memory. `usual` variants are compiled unless others are named.
    """

    name: str
    arch: str
    features: frozenset[str]
    wide_lookup: bool = False
    usual: bool = True


# By name, best first. Few CPUs have AVX512-VNNI without VBMI, and x86-64-v3 runs on them too.
VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant("x86-64-amx", "x86_64", _VBMI | {"amx_tile", "amx_int8"}, wide_lookup=True),
        Variant("x86-64-avx512vbmi", "x86_64", _VBMI, wide_lookup=True),
        Variant("x86-64-avx512vnni", "x86_64", _V4 | {"avx512_vnni"}, usual=False),
        Variant("x86-64-avxvnni", "x86_64", _V3 | {"avx_vnni"}),
        Variant("x86-64-v3", "x86_64", _V3),
        Variant("portable", "x86_64", frozenset()),
        Variant("aarch64-i8mm", "aarch64", frozenset({"asimddp", "i8mm"}), wide_lookup=True),
        Variant("aarch64-dotprod", "aarch64", frozenset({"asimddp"}), wide_lookup=True),
        Variant("aarch64", "aarch64", frozenset()),
    )
}


def usual_variants() -> tuple[str, ...]:
    """The usual variants for this machine's architecture, or for all if none is for it."""
    usual = [variant for variant in VARIANTS.values() if variant.usual]
    here = [variant for variant in usual if variant.arch == platform.machine()]
    return tuple(variant.name for variant in here or usual)
