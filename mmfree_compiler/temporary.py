"""Temporary folders that are removed however their use ends."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from mmfree_compiler.interrupts import uninterrupted


@contextmanager
def temporary_folder(parent: Path | None = None) -> Iterator[Path]:
    """A new folder in `parent`, or the system's folder for temporary files, until the block ends.

    tempfile.TemporaryDirectory would leave it when Ctrl-C arrives while it is removed. Raises
    OSError if it cannot be made.
    """
    with ExitStack() as stack:
        with uninterrupted():
            name = tempfile.mkdtemp(prefix=".mmfree-" if parent else "mmfree-", dir=parent)
            stack.callback(uninterrupted()(shutil.rmtree), name, ignore_errors=True)
        yield Path(name)
