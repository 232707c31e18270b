"""The libraries of a Program: those compiled before from the cache, the others side by side.

The processes that compile share a folder: each takes the next variant whose file is not there yet.
This process is one of them; where there is one CPU, the only one.
"""

from __future__ import annotations

import errno
import pickle
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cache as once
from importlib.metadata import version
from pathlib import Path

from mmfree_compiler.artifact import TensorEntry
from mmfree_compiler.backends.cpu import cache
from mmfree_compiler.backends.cpu.codegen import library, shows_code
from mmfree_compiler.backends.cpu.isa import ISAS, tuned
from mmfree_compiler.backends.cpu.toolchain import STDERR_TAIL, identity
from mmfree_compiler.backends.cpu.tuning import Tuning
from mmfree_compiler.errors import ToolchainError
from mmfree_compiler.program import Program
from mmfree_compiler.runtime.threads import resolve_threads

# A child finds modules where this process does, but never torch, which TVM would import.
_CHILD = f"""
import sys
folder, *sys.path[:] = sys.argv[1:]
sys.modules["torch"] = None
from {__name__} import child
child(folder)
"""
_JOB, _STDERR = "job.pickle", "stderr.txt"
ROOM = 32 << 20  # bytes that objects and libraries of all variants take at most, several times over


@dataclass(frozen=True)
class Job:
    """A program without its constants' data, their places, and each variant's settings."""

    program: Program
    tensors: Mapping[str, TensorEntry]
    tunings: Mapping[str, Tuning]

    @classmethod
    def of(
        cls, program: Program, tensors: Mapping[str, TensorEntry], tunings: Mapping[str, Tuning]
    ) -> Job:
        bare = {name: replace(c, parts=()) for name, c in program.constants.items()}
        return cls(replace(program, constants=bare), tensors, tunings)

    def key(self, name: str) -> str:
        """The cache's name of a variant's library: all that its bytes depend on."""
        triple = ISAS[name].triple
        made_by = (_sources(), version("apache-tvm"), version("apache-tvm-ffi"), identity(triple))
        about = (name, self.tunings[name], repr(self.program), self.tensors)
        return cache.key(*made_by, *about)

    def compile(self, name: str) -> bytes:
        return library(self.program, tuned(name, self.tunings[name]), self.tensors)


def libraries(
    program: Program, tensors: Mapping[str, TensorEntry], tunings: Mapping[str, Tuning]
) -> dict[str, bytes]:
    """The ELF library of each variant of `tunings`, in that order.

    `tensors` are the constants' places in weights.bin. Raises ToolchainError.
    """
    job, names = Job.of(program, tensors, tunings), tuple(tunings)
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
    """A hash of this package's source text: any of it may decide what is generated."""
    files = Path(__file__).parents[2].rglob("*")
    paths = sorted(path for path in files if path.suffix in (".py", ".c"))
    return cache.key(*(fact for path in paths for fact in (path.name, path.read_bytes())))


def _compile(job: Job, names: Sequence[str]) -> dict[str, bytes]:
    """The libraries of `names`, by as many processes as there are CPUs for."""
    if not names:
        return {}
    # The plainer an instruction set, the longer it takes: the longest are not left for the end.
    order = tuple(reversed(names))
    with _working() as folder:
        Path(folder, _JOB).write_bytes(pickle.dumps((job, order)))
        with _children(folder, min(len(names), resolve_threads(None)) - 1):
            _work(folder, job, order)
        return {name: Path(folder, name).read_bytes() for name in names}


@contextmanager
def _working() -> Iterator[str]:
    """A temporary folder. LLVM ends the process when it cannot write: better to see it before."""
    try:
        with tempfile.TemporaryDirectory(prefix="mmfree-") as folder:
            if shutil.disk_usage(folder).free < ROOM:
                raise OSError(errno.ENOSPC, f"fewer than {ROOM >> 20} MiB are free")
            yield folder
    except OSError as error:
        cause = f"cannot be worked in: {error.strerror or error}"
        hint = "Make room, or set TMPDIR to another folder"
        raise ToolchainError(tempfile.gettempdir(), cause, hint) from error


def _work(folder: str, job: Job, names: Sequence[str]) -> None:
    """Compile what no other process has begun."""
    for name in names:
        with suppress(FileExistsError), Path(folder, name).open("xb") as file:
            file.write(job.compile(name))


def child(folder: str) -> None:
    """What a child process does."""
    tempfile.tempdir = folder  # whatever ends this process, the parent removes what it left
    job, names = pickle.loads(Path(folder, _JOB).read_bytes())
    _work(folder, job, names)


@contextmanager
def _children(folder: str, count: int) -> Iterator[None]:
    """`count` processes at work on `folder`, waited for at the end, or ended on an error.

    Raises ToolchainError when one fails.
    """
    command = [sys.executable, "-P", "-c", _CHILD, folder, *map(str, sys.path)]
    said = Path(folder, _STDERR)
    with said.open("ab") as stderr, ExitStack() as stack:
        processes = []
        for _ in range(count):
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stderr=stderr)
            processes.append(stack.enter_context(process))
            stack.callback(process.kill)
        yield
        for status in filter(None, [process.wait() for process in processes]):
            tail = said.read_text(errors="replace").strip()[-STDERR_TAIL:]
            cause = f"ended with status {status}\n{tail}".strip()
            hint = "Is there memory enough? Fewer variants take less: --target cpu:VARIANT"
            raise ToolchainError("a process that compiles", cause, hint)
