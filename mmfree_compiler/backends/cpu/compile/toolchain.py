"""Calling the C compiler and the linker of the CPU backend.

Zig's first link for a triple builds stubs of the C library in the user's cache folder, which takes
a few seconds and about 50 MB.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from mmfree_compiler.backends.cpu.compile.toolchains import TOOLCHAINS, find_toolchain
from mmfree_compiler.building import cache
from mmfree_compiler.building.jobs import STDERR_TAIL
from mmfree_compiler.building.processes import running
from mmfree_compiler.errors import ToolchainError
from mmfree_compiler.temporary import temporary_folder

COMPILE_FLAGS = ("-std=c11", "-O2", "-fPIC", "-g0", "-Wall", "-Wextra", "-Werror")
LINK_FLAGS = ("-shared", "-Wl,-s", "-lpthread", "-lm")
THREADS_SOURCE = Path(__file__).with_name("threads.c")
# What every library holds beside the kernels.
SOURCES = (THREADS_SOURCE, Path(__file__).with_name("binding.c"))
# The symbols of TVM's runtime that threads.c defines. Calls of others would go to null pointers.
RUNTIME = {b"__TVMBackendParallelBarrier", b"__TVMBackendParallelLaunch"}
DISK_FULL = ("No space left", "NoSpaceLeft", "quota exceeded", "DiskQuota")  # of the system, of Zig


def identity(triple: str) -> str:
    """A text that identifies the toolchain for `triple` and its version.

    Raises ToolchainError if there is none.
    """
    toolchain = find_toolchain()
    program = Path(shutil.which(toolchain.command(triple)[0]) or "").resolve()
    changed = program.stat().st_mtime_ns if program.is_file() else ""
    return f"{toolchain.name} {toolchain.find()} for {triple}: {program} of {changed}"


def compile_object(source: Path, triple: str, flags: Sequence[str] = ()) -> bytes:
    """The ELF object that C11 `source` compiles to. Raises ToolchainError."""
    with temporary_folder() as folder:
        output = folder / "out.o"
        _run(triple, [*COMPILE_FLAGS, *flags, "-c", str(source), "-o", str(output)])
        return output.read_bytes()


def link(objects: Sequence[Path], output: Path, triple: str) -> None:
    """Link ELF `objects` and SOURCES into the shared library `output`.

    `output` is written completely or not at all. Symbols of TVM's FFI library stay undefined: the
    process that loads it has them. Raises ToolchainError, also if an object calls a function of
    TVM's runtime that the thread pool does not define.
    """
    _check_runtime_calls(objects)
    compiled = {source.stem: source_object(source, triple) for source in SOURCES}
    with _renamed_to(output) as partial:
        added = [partial.with_name(f"{name}.o") for name in compiled]
        for path, code in zip(added, compiled.values(), strict=True):
            path.write_bytes(code)
        _run(triple, [*map(str, [*objects, *added]), *LINK_FLAGS, "-o", str(partial)])


def _check_runtime_calls(objects: Sequence[Path]) -> None:
    codes = (path.read_bytes() for path in objects if path.is_file())
    calls = {call for code in codes for call in re.findall(rb"__TVMBackend\w+", code)}
    if absent := b", ".join(sorted(calls - RUNTIME)).decode():
        raise ToolchainError("the kernels", f"need {absent} of TVM's runtime", "Report this bug")


def source_object(source: Path, triple: str) -> bytes:
    """One of SOURCES compiled, from the user's cache if it was compiled before."""
    name = cache.key(identity(triple), COMPILE_FLAGS, source.read_text())
    return cache.get(name, lambda: compile_object(source, triple))


@contextmanager
def _renamed_to(path: Path) -> Iterator[Path]:
    """A path beside `path` to write to, renamed to it at the end and removed after an error."""
    try:
        with temporary_folder(path.parent) as folder:
            partial = folder / path.name
            yield partial
            partial.replace(path)
    except OSError as error:
        raise ToolchainError(str(path), str(error), "Choose a folder that can be written") from None


def _run(triple: str, arguments: Sequence[str]) -> None:
    toolchain = find_toolchain()
    stubs = cache.folder("zig")
    names = ("ZIG_GLOBAL_CACHE_DIR", "ZIG_LOCAL_CACHE_DIR")
    environment = os.environ | dict.fromkeys(names, str(stubs))
    command = [*toolchain.command(triple), *arguments]
    try:
        with running(command, subprocess.PIPE, environment) as process:
            said = process.communicate()[1].decode(errors="replace").strip()
            status = process.returncode
    except OSError as error:
        said, status = str(error), -1
    if status == 0:
        return
    if any(words in said for words in DISK_FULL):
        raise _disk_full(stubs)
    raise ToolchainError(
        f"{toolchain.name} toolchain for {triple}",
        f"{' '.join(command)} ended with status {status}\n{said[-STDERR_TAIL:]}".strip(),
        f"Try the other toolchain: MMFREE_LINKER={'|'.join(TOOLCHAINS)}",
    )


def _disk_full(stubs: Path) -> ToolchainError:
    """The error that names the fuller one of the folders that a toolchain writes to."""
    places = (
        ("cache", stubs, "XDG_CACHE_HOME"),
        ("temporary", Path(tempfile.gettempdir()), "TMPDIR"),
    )
    kind, folder, variable = min(places, key=lambda place: shutil.disk_usage(place[1]).free)
    hint = f"Free 64 MB there, or set {variable} to another folder"
    return ToolchainError(f"{kind} folder {folder}", "has no space left", hint)
