"""C code beside the benchmarks, compiled for this machine."""

from __future__ import annotations

import ctypes
import subprocess
from pathlib import Path

from mmfree_compiler.backends.cpu.compile.toolchains import find_toolchain, host_triple

FLAGS = ("-std=gnu11", "-O3", "-fPIC", "-shared", "-pthread", "-Wall", "-Wextra", "-Werror")


def compiled(source: Path, folder: Path) -> ctypes.CDLL:
    """The library of a C file, written into `folder`."""
    library = (folder / source.with_suffix(".so").name).resolve()
    command = find_toolchain().command(host_triple())
    subprocess.run([*command, *FLAGS, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))
