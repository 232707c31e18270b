"""Lets tests run AMX kernels on a machine without AMX: see amx_emulator.c."""

from __future__ import annotations

import ctypes
import re
import subprocess
import tempfile
from functools import cache
from pathlib import Path

from mmfree_compiler.backends.cpu import features
from mmfree_compiler.backends.cpu.compile.toolchains import find_toolchain, host_triple
from mmfree_compiler.backends.cpu.features import AMX, lacks
from mmfree_compiler.backends.cpu.variants import VARIANTS

SOURCE = Path(__file__).with_name("amx_emulator.c")


@cache
def emulate_amx() -> ctypes.CDLL | None:
    """The emulator, from now on in the place of AMX; None where it is not needed or cannot help.

    Call it after faulthandler is set up: both want the signal of illegal instructions.
    """
    has, needs = features.cpu_features(), VARIANTS["x86-64-amx"].features
    if lacks(VARIANTS["x86-64-avx512vbmi"]) or needs <= has:
        return None
    with tempfile.TemporaryDirectory() as folder:
        library = Path(folder, "emulator.so")
        command = [*find_toolchain().command(host_triple()), "-O2", "-shared", "-fPIC"]
        subprocess.run([*command, str(SOURCE), "-o", str(library)], check=True)
        emulator = ctypes.CDLL(str(library))
    emulator.amx_emulated.restype = ctypes.c_uint64
    _claim(AMX)
    return emulator


def is_emulated(variant: str) -> bool:
    """Whether a variant runs here in emulation: thousands of times slower."""
    return variant == "x86-64-amx" and emulate_amx() is not None


def _claim(more: frozenset[str]) -> None:
    """From now on the runtime reads of these features too, for the whole run."""
    told = Path(tempfile.mkdtemp(), "cpuinfo")
    flags = re.compile("^(flags.*)$", re.MULTILINE)
    told.write_text(flags.sub(rf"\1 {' '.join(more)}", features.CPUINFO.read_text()))
    features.CPUINFO = told
    features._may_use_amx = lambda: True
    features.cpu_features.cache_clear()
