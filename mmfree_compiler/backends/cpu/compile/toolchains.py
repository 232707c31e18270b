"""Finding a C toolchain: Zig from PyPI, or the system's `cc`.

Zig has stubs of the C library for every architecture, so that no other compiler is needed and
libraries link against glibc 2.17 on every machine. Finding a toolchain needs only the base install.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sys
from collections.abc import Callable
from dataclasses import dataclass

from mmfree_compiler.errors import ToolchainError

GLIBC = "2.17"  # the oldest glibc that the libraries run on


@dataclass(frozen=True)
class Toolchain:
    """A way to call a C compiler.

    `find` returns its version, or None if it is not installed. `command` returns the start of a
    command line for a triple such as "x86_64-linux-gnu".
    """

    name: str
    find: Callable[[], str | None]
    command: Callable[[str], list[str]]


def host_triple() -> str:
    """The triple of this machine, such as "x86_64-linux-gnu"."""
    return f"{platform.machine()}-linux-gnu"


def find_toolchain() -> Toolchain:
    """The toolchain that MMFREE_LINKER names ("zig" or "system"), else the first one installed.

    Raises ToolchainError when it is not installed.
    """
    wanted = os.environ.get("MMFREE_LINKER")
    if wanted and wanted not in TOOLCHAINS:
        raise ToolchainError(
            f"MMFREE_LINKER={wanted}", "is unknown", f"Known: {', '.join(TOOLCHAINS)}"
        )
    for toolchain in [TOOLCHAINS[wanted]] if wanted else TOOLCHAINS.values():
        if toolchain.find():
            return toolchain
    thing = f"C toolchain {wanted or ' or '.join(TOOLCHAINS)}"
    raise ToolchainError(thing, "is not installed", "pip install ziglang")


def _zig_version() -> str | None:
    if importlib.util.find_spec("ziglang") is None:
        return None
    return importlib.metadata.version("ziglang")


def _zig_command(triple: str) -> list[str]:
    return [sys.executable, "-P", "-m", "ziglang", "cc", "-target", f"{triple}.{GLIBC}"]


def _system_version() -> str | None:
    return shutil.which("cc")


def _system_command(triple: str) -> list[str]:
    return ["cc"] if triple == host_triple() else [f"{triple}-gcc"]


# In order of preference.
TOOLCHAINS = {
    "zig": Toolchain("zig", _zig_version, _zig_command),
    "system": Toolchain("system", _system_version, _system_command),
}
