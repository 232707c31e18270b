"""C compiler and linker of the CPU backend: Zig from PyPI, or the system's `cc`.

Zig carries the C library's stubs for every architecture, so that no compiler need be installed and
a library links against glibc 2.17 wherever it is made. Its first link for a triple builds them, a
few seconds and some 50 MB, into the user's cache folder.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import platform
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from mmfree_compiler.backends.cpu import cache
from mmfree_compiler.errors import ToolchainError

GLIBC = "2.17"  # the oldest glibc that the libraries run on
COMPILE_FLAGS = ("-std=c11", "-O2", "-fPIC", "-g0", "-Wall", "-Wextra", "-Werror")
LINK_FLAGS = ("-shared", "-Wl,-s", "-lpthread", "-lm")
THREADS_SOURCE = Path(__file__).with_name("threads.c")
# Of TVM's runtime, what threads.c defines. Anything else would be called through a null pointer.
RUNTIME = {b"__TVMBackendParallelBarrier", b"__TVMBackendParallelLaunch"}
STDERR_TAIL = 2000  # characters
DISK_FULL = ("No space left", "NoSpaceLeft", "quota exceeded", "DiskQuota")  # the system's, Zig's


@dataclass(frozen=True)
class Toolchain:
    """A way to call a C compiler.

    `find` returns its version, or None where it is not installed; `command` is the start of a
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
            f"MMFREE_LINKER={wanted}", "no such toolchain", f"Known: {', '.join(TOOLCHAINS)}"
        )
    for toolchain in [TOOLCHAINS[wanted]] if wanted else TOOLCHAINS.values():
        if toolchain.find():
            return toolchain
    raise ToolchainError(
        f"C toolchain {wanted or ' or '.join(TOOLCHAINS)}", "not installed", "pip install ziglang"
    )


def identity(triple: str) -> str:
    """What tells the toolchain for `triple` from any other, another version of it included.

    Raises ToolchainError when there is none.
    """
    toolchain = find_toolchain()
    program = Path(shutil.which(toolchain.command(triple)[0]) or "").resolve()
    changed = program.stat().st_mtime_ns if program.is_file() else ""
    return f"{toolchain.name} {toolchain.find()} for {triple}: {program} of {changed}"


def compile_object(source: Path, triple: str, flags: Sequence[str] = ()) -> bytes:
    """The ELF object that C11 `source` compiles to. Raises ToolchainError."""
    with tempfile.TemporaryDirectory(prefix="mmfree-") as folder:
        output = Path(folder, "out.o")
        _run(triple, [*COMPILE_FLAGS, *flags, "-c", str(source), "-o", str(output)])
        return output.read_bytes()


def link(objects: Sequence[Path], output: Path, triple: str) -> None:
    """Link ELF `objects` and the thread pool into the shared library `output`, whole or not at all.

    Symbols of TVM's FFI library stay undefined: the process that loads it has them. Raises
    ToolchainError, also when an object calls a part of TVM's runtime that is not there.
    """
    _check_runtime_calls(objects)
    pool = threads_object(triple)
    with _renamed_to(output) as partial:
        threads = partial.with_name("threads.o")
        threads.write_bytes(pool)
        _run(triple, [*map(str, objects), str(threads), *LINK_FLAGS, "-o", str(partial)])


def _check_runtime_calls(objects: Sequence[Path]) -> None:
    codes = (path.read_bytes() for path in objects if path.is_file())
    calls = {call for code in codes for call in re.findall(rb"__TVMBackend\w+", code)}
    if absent := b", ".join(sorted(calls - RUNTIME)).decode():
        raise ToolchainError("the kernels", f"need {absent} of TVM's runtime", "Report this bug")


def threads_object(triple: str) -> bytes:
    """The compiled thread pool, from the user's cache when this source was compiled before."""
    name = cache.key(identity(triple), COMPILE_FLAGS, THREADS_SOURCE.read_text())
    return cache.get(name, lambda: compile_object(THREADS_SOURCE, triple))


@contextmanager
def _renamed_to(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, renamed to it at the end and removed after an error."""
    try:
        folder = tempfile.TemporaryDirectory(prefix=".mmfree-", dir=path.parent)
    except OSError as error:
        raise ToolchainError(str(path), str(error), "Choose a folder that can be written") from None
    with folder as name:
        partial = Path(name, path.name)
        yield partial
        partial.replace(path)


def _run(triple: str, arguments: Sequence[str]) -> None:
    toolchain = find_toolchain()
    stubs = cache.folder("zig")
    names = ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR")
    environment = os.environ | dict.fromkeys(names, str(stubs))
    command = [*toolchain.command(triple), *arguments]
    try:
        subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        said = str(getattr(error, "stderr", None) or "").strip()
        if any(words in f"{error}\n{said}" for words in DISK_FULL):
            raise _disk_full(stubs) from None
        raise ToolchainError(
            f"{toolchain.name} toolchain for {triple}",
            f"{error}\n{said[-STDERR_TAIL:]}".strip(),
            f"Try the other one: MMFREE_LINKER={'|'.join(TOOLCHAINS)}",
        ) from None


def _disk_full(stubs: Path) -> ToolchainError:
    """What is said of the fuller one of the folders that a toolchain writes to."""
    places = (
        ("cache", stubs, "XDG_CACHE_HOME"),
        ("temporary", Path(tempfile.gettempdir()), "TMPDIR"),
    )
    kind, folder, variable = min(places, key=lambda place: shutil.disk_usage(place[1]).free)
    hint = f"Free 64 MB there, or set {variable} to another folder"
    return ToolchainError(f"{kind} folder {folder}", "no space left", hint)


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
