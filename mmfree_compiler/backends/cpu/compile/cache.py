"""The cache of compiled code and tuned settings, in the user's cache folder.

The name of an entry is the SHA-256 of everything that its bytes depend on. An entry begins with the
SHA-256 of its data, so that a damaged one is detected and made again. It is written under another
name first, so that processes can share the folder. If the folder cannot be written, nothing is
cached; that is not an error.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import platformdirs

from mmfree_compiler.errors import ToolchainError

LIMIT = 256 << 20  # bytes; a library of five variants takes a third of a MiB
DIGEST = hashlib.sha256().digest_size  # bytes before the data


def folder(name: str = "") -> Path:
    """The subfolder `name` of the cache.

    It is in the user's cache folder or, if that cannot be written, in the temporary folder. Raises
    ToolchainError if neither can be written.
    """
    temporary = Path(tempfile.gettempdir(), f"mmfree-compiler-{os.getuid()}")
    for root in (Path(platformdirs.user_cache_dir("mmfree-compiler")), temporary):
        try:
            root.mkdir(mode=0o700, parents=True, exist_ok=True)
            if os.access(root, os.W_OK) and root.stat().st_uid == os.getuid():
                (root / name).mkdir(exist_ok=True)
                return root / name
        except OSError:
            continue
    raise ToolchainError(str(temporary), "cannot be written to", "Set XDG_CACHE_HOME to a folder")


def key(*facts: object) -> str:
    """The name of an entry that depends on `facts`; str() of each must tell it from any other."""
    parts = (str(fact).encode() for fact in facts)
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def get(name: str, make: Callable[[], bytes]) -> bytes:
    """The entry `name`, which is made and stored if it is missing."""
    found = load(name)
    if found is None:
        found = make()
        store(name, found)
    return found


def load(name: str) -> bytes | None:
    """The bytes of the entry `name`; None if it is missing or damaged."""
    with suppress(OSError, ToolchainError):
        path = folder("objects") / name
        entry = path.read_bytes() if path.is_file() else b""  # opening a pipe would wait forever
        digest, data = entry[:DIGEST], entry[DIGEST:]
        if hashlib.sha256(data).digest() == digest:
            with suppress(OSError):
                os.utime(path)  # the time of its last use: see _prune
            return data
    return None


def store(name: str, data: bytes) -> None:
    """Store `data` as the entry `name`, and remove the least recently used entries."""
    with suppress(OSError, ToolchainError):
        objects = folder("objects")
        with tempfile.TemporaryDirectory(prefix=".mmfree-", dir=objects) as writing:
            partial = Path(writing, name)
            partial.write_bytes(hashlib.sha256(data).digest() + data)
            partial.replace(objects / name)
        _prune(objects)


def _prune(objects: Path) -> None:
    kept = 0
    for _, size, path in sorted(_entries(objects), reverse=True):
        kept += size
        if kept > LIMIT:
            path.unlink(missing_ok=True)


def _entries(objects: Path) -> Iterator[tuple[float, int, Path]]:
    """(time of last use, bytes, path) of each; another process may remove entries meanwhile."""
    for path in objects.iterdir():
        with suppress(OSError):
            status = path.stat()
            if path.is_file():
                yield status.st_mtime, status.st_size, path
