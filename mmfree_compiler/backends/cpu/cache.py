"""What can be made again but takes time, by content, in the user's cache folder.

A key is the SHA-256 of all that the bytes depend on. An entry begins with the SHA-256 of what
follows, so that a damaged one is made anew; it is written under another name first, so that
processes share the folder. A cache that cannot be written is none, and no error.
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
    """A folder for what can be made again, the part `name` of it.

    It lies in the user's cache, else in the temporary folder. Raises ToolchainError when neither
    can be written.
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
    """The name of an entry that depends on `facts`, whose text must tell all there is to them."""
    parts = (str(fact).encode() for fact in facts)
    return hashlib.sha256(b"".join(hashlib.sha256(part).digest() for part in parts)).hexdigest()


def get(name: str, make: Callable[[], bytes]) -> bytes:
    """The entry `name`, made and kept when there is none."""
    found = load(name)
    if found is None:
        found = make()
        store(name, found)
    return found


def load(name: str) -> bytes | None:
    """The bytes of the entry `name`; None when there is none, or a damaged one."""
    with suppress(OSError, ToolchainError):
        path = folder("objects") / name
        entry = path.read_bytes() if path.is_file() else b""  # opening a pipe would wait for ever
        digest, data = entry[:DIGEST], entry[DIGEST:]
        if hashlib.sha256(data).digest() == digest:
            with suppress(OSError):
                os.utime(path)  # used now: see _prune
            return data
    return None


def store(name: str, data: bytes) -> None:
    """Keep `data` as the entry `name`; those used longest ago make room for it."""
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
    """(time of last use, bytes, path); another process may have removed what was listed."""
    for path in objects.iterdir():
        with suppress(OSError):
            status = path.stat()
            if path.is_file():
                yield status.st_mtime, status.st_size, path
