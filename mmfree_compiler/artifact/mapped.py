"""A file whose bytes can be mapped into memory or copied out."""

from __future__ import annotations

import hashlib
import mmap
import os
import weakref
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.artifact.weights import Copy, aligned_empty
from mmfree_compiler.errors import ArtifactError

if TYPE_CHECKING:
    from hashlib import _Hash

Bytes = NDArray[np.uint8]

_PIECE = 1 << 20  # bytes that are hashed at once


def sha256(part: Bytes, copy: Copy) -> _Hash:
    """The hash of `part`, which `copy` reads. Pages that are mapped would all stay resident."""
    digest, buffer = hashlib.sha256(), np.empty(min(_PIECE, part.size), np.uint8)
    for start in range(0, part.size, _PIECE):
        piece = part[start : start + _PIECE]
        copy(piece, buffer[: piece.size])
        digest.update(buffer[: piece.size].data)
    return digest


class MappedFile:
    """A file mapped for reading, and kept open. Raises OSError.

    `bytes` is the whole file, read-only (size,) uint8. Its pages become resident on use, together
    with neighbouring pages in the page cache, up to a few MiB at once. `copy` maps nothing, so it
    is better for small scattered reads. Both work after the file was renamed or removed. When it
    is changed in place, mapped bytes change too, and the process ends when it becomes shorter and
    one of those that are gone is read: `check_unchanged` finds that before.
    """

    def __init__(self, thing: str, descriptor: int) -> None:
        """Map an open file; the caller closes `descriptor`. Errors name the file `thing`."""
        self.thing = thing
        self.bytes: Bytes = np.frombuffer(
            mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ), np.uint8
        )
        self._start = self.bytes.ctypes.data
        self._descriptor = os.dup(descriptor)
        self._version = self._found()
        weakref.finalize(self, os.close, self._descriptor)

    def copy(self, part: Bytes, out: Bytes) -> None:
        """Copy `part`, a contiguous view of `bytes`, to `out`, contiguous and of equal size.

        Raises ArtifactError when the file cannot be read, or has become shorter.
        """
        try:
            copied = os.preadv(self._descriptor, [out.data], part.ctypes.data - self._start)
        except OSError as error:
            raise self._unreadable(error.strerror or str(error)) from error
        if copied != part.nbytes:
            raise self._unreadable("it has become shorter")

    def copied(self, part: Bytes) -> Bytes:
        """A copy of `part`, aligned and read-only, which no change of the file reaches."""
        out: Bytes = aligned_empty(part.size, np.uint8)
        self.copy(part, out)
        out.flags.writeable = False
        return out

    def check_unchanged(self) -> None:
        """Raise ArtifactError if the file was written to since it was mapped."""
        if self._found() != self._version:
            hint = "Load it again; replace a file by renaming another over it"
            raise ArtifactError(self.thing, "was changed after it was loaded", hint)

    def _found(self) -> tuple[int, int]:
        status = os.fstat(self._descriptor)
        return status.st_size, status.st_mtime_ns

    def _unreadable(self, cause: str) -> ArtifactError:
        return ArtifactError(self.thing, f"cannot be read: {cause}", "Load the file again")
