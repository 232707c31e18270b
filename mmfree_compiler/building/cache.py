"""The cache of compiled code and tuned settings, in the user's cache folder.

The name of an entry is the SHA-256 of everything that its bytes depend on. An entry begins with the
SHA-256 of its name and its data, so that one that is damaged, or of another name, is made again. It
is written under another name first, so that processes can share the folder. If the folder cannot be
written, nothing is cached; that is not an error.

Entries are code that runs as this user: nobody else may ever have been able to write in a folder.
"""

from __future__ import annotations

import errno
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import platformdirs

from mmfree_compiler.errors import ToolchainError
from mmfree_compiler.temporary import temporary_folder

LIMIT = 256 << 20  # bytes; a library of five variants takes a third of a MiB
DIGEST = hashlib.sha256().digest_size  # bytes before the data


def folder(name: str = "") -> Path:
    """The subfolder `name` of the cache.

    It is in the user's cache folder or, if that cannot be used, in the temporary folder. Raises
    ToolchainError if neither can be written, or others may write in both.
    """
    reasons = []
    for place in (_of_user, _temporary):
        try:
            root = place()
            _private(root / name, shut=_private(root))
            return root / name
        except OSError as error:
            reasons.append(f"{error.filename}: {error.strerror}" if error.filename else str(error))
    hint = "Set XDG_CACHE_HOME to a folder of your own"
    raise ToolchainError("no cache folder", "; ".join(reasons), hint)


def _of_user() -> Path:
    return Path(platformdirs.user_cache_dir("mmfree-compiler"))


def _temporary() -> Path:
    return Path(tempfile.gettempdir(), f"mmfree-compiler-{os.getuid()}")


def _private(path: Path, shut: bool = False) -> bool:
    """Make `path` a folder that only this user may open; whether it was one before.

    `shut`: the folder around it has always been one. Raises OSError where others may have written.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    # A link in the temporary folder is another user's, even where it leads to a folder of this one.
    if {path.lstat().st_uid, path.stat().st_uid} != {os.getuid()}:
        raise PermissionError(errno.EPERM, "belongs to another user", str(path))
    mode = path.stat().st_mode
    if mode & 0o022 and not shut:
        raise PermissionError(errno.EPERM, "may be written by other users", str(path))
    if mode & 0o077:
        path.chmod(0o700)
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "cannot be written", str(path))
    return not mode & 0o077


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
        if _digest(name, data) == digest:
            with suppress(OSError):
                os.utime(path)  # the time of its last use: see _prune
            return data
    return None


def store(name: str, data: bytes) -> None:
    """Store `data` as the entry `name`, and remove the least recently used entries."""
    with suppress(OSError, ToolchainError):
        objects = folder("objects")
        with temporary_folder(objects) as writing:
            partial = writing / name
            partial.write_bytes(_digest(name, data) + data)
            partial.replace(objects / name)
        _prune(objects)


def keep(name: str, data: bytes, what: str) -> None:
    """Store what is not made again by itself. Raises ToolchainError if it cannot be stored."""
    store(name, data)
    if load(name) != data:
        hint = "Free some space, or set XDG_CACHE_HOME to another folder"
        raise ToolchainError(f"cache folder {folder('objects')}", f"cannot store {what}", hint)


def _digest(name: str, data: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + data).digest()


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
