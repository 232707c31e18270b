"""An aarch64 machine in emulation: its libraries run in qemu, one process per call.

The runtime above them is the real one, in this process: only `dlopen` and the CPU are replaced.
"""

from __future__ import annotations

import math
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from mmfree_compiler.backends.cpu import features
from mmfree_compiler.backends.cpu.compile.toolchains import find_toolchain
from mmfree_compiler.backends.cpu.run import launcher, team_size
from mmfree_compiler.backends.cpu.variants import VARIANTS

SOURCE = Path(__file__).with_name("aarch64_driver.c")
QEMU = "qemu-aarch64"
SYSROOT = Path("/usr/aarch64-linux-gnu")  # of Debian's libc6-arm64-cross
TRIPLE = "aarch64-linux-gnu"
# variant -> a CPU that has what the variant needs and not what the next better one needs
CPUS = {"aarch64-i8mm": "max", "aarch64-dotprod": "cortex-a76", "aarch64": "cortex-a53"}
DLPACK_CODES = {"i": 0, "u": 1, "f": 2}  # NumPy's kind -> DLPack's type code
ALIGNMENT = 64
TIMEOUT = 120  # seconds after which a call counts as hung


def missing() -> str:
    """Why nothing can be emulated here; empty when it can."""
    there = {"qemu-user": shutil.which(QEMU), "libc6-arm64-cross": (SYSROOT / "lib").exists()}
    absent = " ".join(package for package, found in there.items() if not found)
    return f"needs: apt-get install {absent}" if absent else ""


def emulate(monkeypatch: pytest.MonkeyPatch, variant: str) -> None:
    """Sessions made from now on run on an aarch64 CPU for which `variant` is the best.

    They use all their threads: small weights take fewer, and so would a caller that waits for qemu.
    """
    monkeypatch.setattr(launcher, "BYTES_PER_THREAD", 1)
    monkeypatch.setattr(team_size, "WINDOW", math.inf)
    monkeypatch.setattr(features, "machine_arch", lambda: "aarch64")
    monkeypatch.setattr(features, "cpu_features", lambda: VARIANTS[variant].features)
    monkeypatch.setattr(launcher, "load_library", partial(Library, CPUS[variant]))


class Library:
    """A library's functions on an emulated `cpu`, called as those of tvm_ffi's module are."""

    def __init__(self, cpu: str, code: NDArray[np.uint8]) -> None:
        self._folder = tempfile.TemporaryDirectory()
        self._cpu = cpu
        self._path = Path(self._folder.name, "kernels.so")
        self._path.write_bytes(code.tobytes())

    def __getitem__(self, name: str) -> Callable[..., None]:
        return partial(self._call, name)

    def _call(self, name: str, *arguments: Any) -> None:
        """Run the function; arrays among the arguments are updated.

        Raises CalledProcessError when it fails; a negative return code is the signal it died of.
        """
        values = [a if isinstance(a, int) else np.from_dlpack(a) for a in arguments]
        path = Path(self._folder.name, "arguments")
        offsets = _write(path, values)
        machine = [QEMU, "-L", str(SYSROOT), "-cpu", self._cpu]
        call = [str(_driver()), str(self._path), f"__tvm_ffi_{name}", str(path)]
        subprocess.run([*machine, *call], check=True, capture_output=True, timeout=TIMEOUT)
        after = np.fromfile(path, np.uint8)
        for array, offset in zip(values, offsets, strict=True):
            if not isinstance(array, int) and array.flags.writeable:
                array[:] = after[offset : offset + array.nbytes].view(array.dtype)


def _write(path: Path, values: list[int | NDArray[Any]]) -> list[int]:
    """The file that aarch64_driver.c reads; returns where each array begins in it."""
    head, end, offsets = [len(values)], 8 + 32 * len(values), []
    for value in values:
        offset = -(-end // ALIGNMENT) * ALIGNMENT
        offsets.append(offset)
        if isinstance(value, int):
            head += [0, 0, value, 0]
        else:
            kind = value.dtype
            head += [DLPACK_CODES[kind.kind], 8 * kind.itemsize, value.size, offset]
            end = offset + value.nbytes
    file = np.zeros(end, np.uint8)
    file[: 8 * len(head)] = np.array(head, np.int64).view(np.uint8)
    for value, offset in zip(values, offsets, strict=True):
        if not isinstance(value, int):
            file[offset : offset + value.nbytes] = value.view(np.uint8)
    file.tofile(path)
    return offsets


@cache
def _driver() -> Path:
    path = Path(_build_folder().name, "aarch64_driver")
    command = [*find_toolchain().command(TRIPLE), "-O2", "-Wall", "-Werror", "-rdynamic"]
    subprocess.run([*command, str(SOURCE), "-ldl", "-o", str(path)], check=True)
    return path


@cache
def _build_folder() -> tempfile.TemporaryDirectory[str]:
    return tempfile.TemporaryDirectory()
