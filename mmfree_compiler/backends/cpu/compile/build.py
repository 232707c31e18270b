"""Compiling the libraries of a Program in parallel, except those that are in the cache.

The compiling processes share a folder: each takes the next variant whose file does not exist yet.
This process is one of them, and with one CPU the only one.
"""

from __future__ import annotations

import errno
import os
import pickle
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache as once
from importlib.metadata import version
from pathlib import Path

from mmfree_compiler.artifact import TensorEntry
from mmfree_compiler.backends.cpu.compile import cache
from mmfree_compiler.backends.cpu.compile.codegen import library, shows_code
from mmfree_compiler.backends.cpu.compile.isa import ISAS, tuned
from mmfree_compiler.backends.cpu.compile.packed import reading
from mmfree_compiler.backends.cpu.compile.planned import PlannedProgram
from mmfree_compiler.backends.cpu.compile.processes import end_with, running
from mmfree_compiler.backends.cpu.compile.toolchain import STDERR_TAIL, identity
from mmfree_compiler.backends.cpu.compile.tuning import Tuning
from mmfree_compiler.errors import ToolchainError
from mmfree_compiler.temporary import temporary_folder
from mmfree_compiler.threads import resolve_threads

# A child has this process's module path, but finds no torch, which TVM would import.
_CHILD = f"""
import sys
parent, folder, *sys.path[:] = sys.argv[1:]
sys.modules["torch"] = None
from {__name__} import child
child(int(parent), folder)
"""
_JOB, _STDERR = "job.pickle", "stderr.txt"
ROOM = 32 << 20  # bytes: several times the size of the objects and libraries of all variants


@dataclass(frozen=True)
class Recipe:
    """How a variant is compiled: the layout of the weights that it reads, and its settings."""

    layout: str
    tuning: Tuning


@dataclass(frozen=True)
class Job:
    """A program without its constants' data, the constants' places, and each variant's recipe."""

    program: PlannedProgram
    tensors: Mapping[str, TensorEntry]
    recipes: Mapping[str, Recipe]

    @classmethod
    def of(
        cls,
        program: PlannedProgram,
        tensors: Mapping[str, TensorEntry],
        recipes: Mapping[str, Recipe],
    ) -> Job:
        bare = {name: replace(c, parts=()) for name, c in program.constants.items()}
        return cls(replace(program, constants=bare, notes=()), tensors, recipes)

    def read_by(self, name: str) -> PlannedProgram:
        """The program of a variant, with only the constants that it reads."""
        program = reading(self.program, self.recipes[name].layout)
        read = {operand for node in program.nodes() for operand in node.inputs}
        constants = {name: c for name, c in program.constants.items() if name in read}
        return replace(program, constants=constants, layouts={})

    def key(self, name: str) -> str:
        """The cache key of a variant's library: everything that its bytes depend on."""
        triple = ISAS[name].triple
        made_by = (_sources(), version("apache-tvm"), version("apache-tvm-ffi"), identity(triple))
        about = (name, self.recipes[name], repr(self.read_by(name)), self.tensors)
        return cache.key(*made_by, *about)

    def compile(self, name: str) -> bytes:
        isa = tuned(name, self.recipes[name].tuning)
        return library(self.read_by(name), isa, self.tensors)


def libraries(
    program: PlannedProgram, tensors: Mapping[str, TensorEntry], recipes: Mapping[str, Recipe]
) -> dict[str, bytes]:
    """The ELF library of each variant of `recipes`, in that order.

    `tensors` are the constants' places in weights.bin. Raises ToolchainError.
    """
    job, names = Job.of(program, tensors, recipes), tuple(recipes)
    if shows_code():
        return {name: job.compile(name) for name in names}
    keys = {name: job.key(name) for name in names}
    found = {name: cache.load(key) for name, key in keys.items()}
    made = _compile(job, [name for name, data in found.items() if data is None])
    for name, data in made.items():
        cache.store(keys[name], data)
    return {name: data for name, data in (found | made).items() if data is not None}


@once
def _sources() -> str:
    """A hash of this package's source text, any part of which may affect the generated code."""
    files = Path(__file__).parents[3].rglob("*")
    paths = sorted(path for path in files if path.suffix in (".py", ".c"))
    return cache.key(*(fact for path in paths for fact in (path.name, path.read_bytes())))


def _compile(job: Job, names: Sequence[str]) -> dict[str, bytes]:
    """The libraries of `names`, compiled by one process per CPU."""
    if not names:
        return {}
    # Simpler instruction sets take longer, so they are compiled first.
    order = tuple(reversed(names))
    with _working() as folder:
        Path(folder, _JOB).write_bytes(pickle.dumps((job, order)))
        with _children(folder, min(len(names), resolve_threads(None)) - 1):
            _work(folder, job, order)
        return {name: Path(folder, name).read_bytes() for name in names}


@contextmanager
def _working() -> Iterator[Path]:
    """A temporary folder with enough room for files: LLVM ends the process when it cannot write."""
    _check_limit()
    try:
        with temporary_folder() as folder:
            if shutil.disk_usage(folder).free < ROOM:
                raise OSError(errno.ENOSPC, f"less than {ROOM >> 20} MiB is free")
            yield folder
    except OSError as error:
        cause = f"cannot be used: {error.strerror or error}"
        hint = "Free some space, or set TMPDIR to another folder"
        place = tempfile.tempdir or "the temporary folder"  # None where the search for one failed
        raise ToolchainError(str(place), cause, hint) from error


def _check_limit() -> None:
    """Raise ToolchainError where files may not grow to the size that compiling needs."""
    limit, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    if 0 <= limit < ROOM:  # below 0: none
        cause = f"allows {limit:,} bytes per file, compiling needs {ROOM:,}"
        raise ToolchainError("the limit of this process", cause, "Run `ulimit -f unlimited` first")


def _work(folder: Path, job: Job, names: Sequence[str]) -> None:
    """Compile the variants that no other process has begun."""
    for name in names:
        with suppress(FileExistsError), Path(folder, name).open("xb") as file:
            file.write(job.compile(name))


def child(parent: int, folder: str) -> None:
    """The main function of a child process."""
    end_with(parent)
    tempfile.tempdir = folder  # the parent removes it, even if this process is killed
    job, names = pickle.loads(Path(folder, _JOB).read_bytes())
    _work(Path(folder), job, names)


@contextmanager
def _children(folder: Path, count: int) -> Iterator[None]:
    """Start `count` processes on `folder`; wait for them at the end, or kill them on an error.

    Raises ToolchainError when one fails.
    """
    arguments = map(str, (os.getpid(), folder, *sys.path))
    command = [sys.executable, "-P", "-c", _CHILD, *arguments]
    log = Path(folder, _STDERR)
    with log.open("ab") as stderr, ExitStack() as stack:
        processes = [stack.enter_context(running(command, stderr)) for _ in range(count)]
        yield
        for status in filter(None, [process.wait() for process in processes]):
            tail = log.read_text(errors="replace").strip()[-STDERR_TAIL:]
            cause = f"ended with status {status}\n{tail}".strip()
            hint = "If memory ran out, compile fewer variants: --target cpu:VARIANT"
            raise ToolchainError("a compiling process", cause, hint)
