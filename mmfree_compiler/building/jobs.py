"""Making the pieces of a job in parallel, except those that are in the cache.

The processes share a folder: each takes the next piece whose file does not exist yet. This process
is one of them, and with one CPU the only one.
"""

from __future__ import annotations

import errno
import os
import pickle
import resource
import shutil
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from functools import cache as once
from pathlib import Path
from typing import Protocol

from mmfree_compiler.building import cache
from mmfree_compiler.building.processes import end_with, running
from mmfree_compiler.errors import ToolchainError
from mmfree_compiler.temporary import temporary_folder
from mmfree_compiler.threads import resolve_threads

# A child has this process's module path, but finds no torch, which some compilers would import.
_CHILD = f"""
import sys
parent, folder, *sys.path[:] = sys.argv[1:]
sys.modules["torch"] = None
from {__name__} import child
child(int(parent), folder)
"""
_JOB, _STDERR = "job.pickle", "stderr.txt"
STDERR_TAIL = 2000  # characters
ROOM = 32 << 20  # bytes: several times the size of all pieces and what compilers write beside them


class Job(Protocol):
    """Work in named pieces that do not depend on each other. It can be pickled."""

    def key(self, name: str) -> str:
        """The cache key of a piece: everything that its bytes depend on."""

    def compile(self, name: str) -> bytes:
        """Make a piece, without torch. Raises ToolchainError."""

    def apart(self, name: str) -> bool:
        """Whether only child processes may make a piece."""

    def hint(self) -> str:
        """What to do where the memory of compiling processes ran out."""


def pieces(job: Job, names: Sequence[str]) -> dict[str, bytes]:
    """The pieces `names` of a job, in that order; the last ones should take the longest.

    Raises ToolchainError.
    """
    keys = {name: job.key(name) for name in names}
    found = {name: cache.load(key) for name, key in keys.items()}
    made = _compile(job, [name for name, data in found.items() if data is None])
    for name, data in made.items():
        cache.store(keys[name], data)
    return {name: data for name, data in (found | made).items() if data is not None}


@once
def sources() -> str:
    """A hash of this package's source text, any part of which may affect the generated code."""
    files = Path(__file__).parents[1].rglob("*")
    paths = sorted(path for path in files if path.suffix in (".py", ".c"))
    return cache.key(*(fact for path in paths for fact in (path.name, path.read_bytes())))


def _compile(job: Job, names: Sequence[str]) -> dict[str, bytes]:
    """The pieces `names`, compiled by one process per CPU."""
    if not names:
        return {}
    order = tuple(reversed(names))
    own = [name for name in order if not job.apart(name)]
    others = min(len(names), resolve_threads(None)) - 1
    if len(own) < len(order):
        others = max(others, 1)
    with _working() as folder:
        Path(folder, _JOB).write_bytes(pickle.dumps((job, order)))
        with _children(folder, others, job.hint()):
            _work(folder, job, own)
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
    """Compile the pieces that no other process has begun."""
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
def _children(folder: Path, count: int, hint: str) -> Iterator[None]:
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
            raise ToolchainError("a compiling process", cause, hint)
