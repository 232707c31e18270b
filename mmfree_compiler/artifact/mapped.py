"""A file whose bytes can be mapped into memory or copied out."""

from __future__ import annotations

import mmap
import os
import weakref

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.errors import ArtifactError

Bytes = NDArray[np.uint8]


class MappedFile:
    """A file mapped for reading, and kept open. Raises OSError.

    `bytes` is the whole file, read-only (size,) uint8. Its pages become resident on use, together
    with neighbouring pages in the page cache, up to a few MiB at once. `copy` maps nothing, so it
    is better for small scattered reads. Both work after the file was renamed or removed.
    """

    def __init__(self, thing: str, descriptor: int) -> None:
        """Map an open file; the caller closes `descriptor`. Errors name the file `thing`."""
        self._thing = thing
        self.bytes: Bytes = np.frombuffer(
            mmap.mmap(descriptor, 0, access=mmap.ACCESS_READ), np.uint8
        )
        self._start = self.bytes.ctypes.data
        self._descriptor = os.dup(descriptor)
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

    def _unreadable(self, cause: str) -> ArtifactError:
        return ArtifactError(self._thing, f"cannot be read: {cause}", "Load the file again")
