"""The features of this machine's CPU, and choosing the variant that it runs."""

from __future__ import annotations

import ctypes
import os
import platform
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import TypeVar

from mmfree_compiler.backends.cpu.variants import RequiresCpu
from mmfree_compiler.errors import TargetError

CPUINFO = Path("/proc/cpuinfo")
# Linux's spelling -> this package's, where they differ.
_ALIASES = {"abm": "lzcnt", "avx512ifma": "avx512_ifma", "avx512vbmi": "avx512_vbmi"}

AMX = frozenset({"amx_tile", "amx_int8", "amx_bf16"})

AnyVariant = TypeVar("AnyVariant", bound=RequiresCpu)


def machine_arch() -> str:
    """This machine's architecture as in `uname -m`: "x86_64", "aarch64"."""
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
    """The name of this CPU, which identifies measurements on it; empty if it has none."""
    try:
        lines = CPUINFO.read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _may_use_amx() -> bool:
    """Ask Linux for the tile registers, once per process: it enables them on request only."""
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    return bool(ctypes.CDLL(None).syscall(arch_prctl, request_permission, tile_data) == 0)


def lacks(variant: RequiresCpu) -> str:
    """The reason why this machine cannot run `variant`, for people to read; empty if it can."""
    if variant.arch != machine_arch():
        return f"is for {variant.arch}, this machine is {machine_arch()}"
    missing = sorted(set(variant.features) - cpu_features())
    return f"this CPU lacks {', '.join(missing)}" if missing else ""


def choose(variants: Sequence[AnyVariant]) -> AnyVariant:
    """The first of `variants` that this machine runs; the one MMFREE_VARIANT names, if it is set.

    Raises a TargetError with the reason for each variant if there is none.
    """
    forced = os.environ.get("MMFREE_VARIANT")
    known = [variant for variant in variants if variant.name == forced] if forced else variants
    if not known:
        raise TargetError(
            f"variant {forced or 'for cpu'}",
            "is not in the artifact",
            f"It has: {', '.join(variant.name for variant in variants) or 'none'}",
        )
    for variant in known:
        if not lacks(variant):
            return variant
    raise TargetError(
        "this machine",
        "; ".join(f"{variant.name}: {lacks(variant)}" for variant in known),
        "Unset MMFREE_VARIANT" if forced else "Compile the model for a variant that runs here",
    )
