"""The CPU target's checks for `mmfree doctor`."""

from __future__ import annotations

import os
from collections.abc import Iterator

from mmfree_compiler.backends.cpu.features import cpu_features, lacks
from mmfree_compiler.backends.cpu.variants import VARIANTS
from mmfree_compiler.backends.interface import Check, Status
from mmfree_compiler.backends.packages import Package
from mmfree_compiler.errors import ToolchainError

PACKAGES = (
    Package("apache-tvm-ffi", "run for cpu", ""),
    Package("apache-tvm", "compile for cpu", "cpu"),
)
SHOWN_FEATURES = ("avx2", "avx512f", "avx512_vnni", "amx_int8", "asimddp", "i8mm")


def checks() -> Iterator[Check]:
    """The features that matter, each variant, the packages and the linker."""
    found = [name for name in SHOWN_FEATURES if name in cpu_features()]
    yield Check("CPU features", "ok", ", ".join(found) or "none that speed up the kernels")
    yield from _variants()
    yield from (package.check() for package in PACKAGES)
    yield _linker()


def _variants() -> Iterator[Check]:
    """One check per variant, and a failure if none of them runs here."""
    reasons = {name: lacks(variant) for name, variant in VARIANTS.items()}
    for name, reason in reasons.items():
        status: Status = "elsewhere" if reason else "ok"
        yield Check(f"variant {name}", status, reason or "runs here")
    if all(reasons.values()):
        yield Check("cpu target", "failed", "no variant runs here", "Use an x86-64 Linux machine")


def _linker() -> Check:
    from mmfree_compiler.backends.cpu.compile.toolchains import find_toolchain

    try:
        toolchain = find_toolchain()
    except ToolchainError as error:
        # One that the user asks for should be there.
        status: Status = "failed" if os.environ.get("MMFREE_LINKER") else "missing"
        return Check("linker", status, f"{error.thing}: {error.cause}", error.hint)
    return Check("linker", "ok", f"{toolchain.name}: {toolchain.find()}")
