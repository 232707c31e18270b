"""What this machine's CPU can do, by features and never by model names; which variant fits it."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Protocol, TypeVar

from mmfree_compiler.errors import TargetError

CPUINFO = Path("/proc/cpuinfo")
# Linux's spelling -> ours, where they differ.
_ALIASES = {"abm": "lzcnt", "avx512ifma": "avx512_ifma", "avx512vbmi": "avx512_vbmi"}

# The levels of the x86-64 psABI, section 3.1.1: a compiler for a level may use all of its features.
_V2 = frozenset({"cx16", "lahf_lm", "popcnt", "sse4_1", "sse4_2", "ssse3"})
_V3 = _V2 | {"avx", "avx2", "bmi1", "bmi2", "f16c", "fma", "lzcnt", "movbe", "xsave"}
_V4 = _V3 | {"avx512f", "avx512bw", "avx512cd", "avx512dq", "avx512vl"}
_VBMI = _V4 | {"avx512_vnni", "avx512_vbmi"}
AMX = frozenset({"amx_tile", "amx_int8", "amx_bf16"})


@dataclass(frozen=True)
class CpuVariant:
    """A variant's name, the architecture it is for and the features it needs."""

    name: str
    arch: str
    features: frozenset[str]


# By name, in order of preference.
VARIANTS: dict[str, CpuVariant] = {
    variant.name: variant
    for variant in (
        CpuVariant("x86-64-amx", "x86_64", _VBMI | {"amx_tile", "amx_int8"}),
        CpuVariant("x86-64-avx512vbmi", "x86_64", _VBMI),
        CpuVariant("x86-64-avx512vnni", "x86_64", _V4 | {"avx512_vnni"}),
        CpuVariant("x86-64-avxvnni", "x86_64", _V3 | {"avx_vnni"}),
        CpuVariant("x86-64-v3", "x86_64", _V3),
        CpuVariant("portable", "x86_64", frozenset()),
        CpuVariant("aarch64-i8mm", "aarch64", frozenset({"asimddp", "i8mm"})),
        CpuVariant("aarch64-dotprod", "aarch64", frozenset({"asimddp"})),
        CpuVariant("aarch64", "aarch64", frozenset()),
    )
}


class RequiresCpu(Protocol):
    """Code for CPUs of one architecture that have all of `features`."""

    @property
    def name(self) -> str: ...
    @property
    def arch(self) -> str: ...
    @property
    def features(self) -> Collection[str]: ...


AnyVariant = TypeVar("AnyVariant", bound=RequiresCpu)


def machine_arch() -> str:
    """This machine's architecture as `uname -m` says it: "x86_64", "aarch64"."""
    return platform.machine()


@cache
def cpu_features() -> frozenset[str]:
    """Features that every CPU of this machine has, such as "avx2", "avx512_vnni" or "asimddp".

    Read from Linux's /proc/cpuinfo; empty elsewhere.
    """
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        return frozenset()
    keyed = (line.partition(":") for line in lines)
    cores = {flags for key, _, flags in keyed if key.strip() in ("flags", "Features")}
    if not cores:
        return frozenset()
    common = frozenset.intersection(*(frozenset(flags.split()) for flags in cores))
    found = frozenset(_ALIASES.get(flag, flag) for flag in common)
    return found if "amx_tile" not in found or _may_use_amx() else found - AMX


def processor() -> str:
    """This CPU's name, for people and for what was measured on it; empty where it has none."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _may_use_amx() -> bool:
    """Ask Linux for the tile registers, once a process: it gives their state space on demand."""
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    return bool(ctypes.CDLL(None).syscall(arch_prctl, request_permission, tile_data) == 0)


def lacks(variant: RequiresCpu) -> str:
    """What this machine lacks to run `variant`, for people to read; empty when it runs it."""
    if variant.arch != machine_arch():
        return f"is for {variant.arch}, this machine is {machine_arch()}"
    missing = sorted(set(variant.features) - cpu_features())
    return f"this CPU lacks {', '.join(missing)}" if missing else ""


def choose(variants: Sequence[AnyVariant]) -> AnyVariant:
    """The first of `variants` that this machine runs; the one MMFREE_VARIANT names, if it is set.

    Raises TargetError when there is none, saying for each what is missing.
    """
    forced = os.environ.get("MMFREE_VARIANT")
    known = [variant for variant in variants if variant.name == forced] if forced else variants
    if not known:
        raise TargetError(
            f"variant {forced or 'for cpu'}",
            "not in the artifact",
            f"It has: {', '.join(variant.name for variant in variants) or 'none'}",
        )
    for variant in known:
        if not lacks(variant):
            return variant
    raise TargetError(
        "this machine",
        "; ".join(f"{variant.name}: {lacks(variant)}" for variant in known),
        "Unset MMFREE_VARIANT" if forced else "Compile the model for a variant that it runs",
    )
