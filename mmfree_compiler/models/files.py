"""Files that appear whole or not at all: written under a temporary name, then renamed."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError

from mmfree_compiler.errors import CheckpointError
from mmfree_compiler.interrupts import uninterrupted
from mmfree_compiler.models.weight_files import OTHER_FORM
from mmfree_compiler.temporary import temporary_folder


@contextmanager
def staged(folder: Path) -> Iterator[Path]:
    """A temporary folder whose files become `folder`'s when the block ends without an exception.

    Files of `folder` with other names stay, but for weights in the other form (one file, or an
    index of shards), which would be out of date. Raises CheckpointError when a file cannot be
    written.
    """
    with _reported(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder.parent) as temporary:
            yield temporary
            with uninterrupted():
                _publish(temporary, folder)


def check_writable(folder: Path) -> None:
    """Raise CheckpointError now if `staged` could not write to `folder`."""
    with _reported(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with temporary_folder(folder if folder.exists() else folder.parent):
            pass


@contextmanager
def _reported(folder: Path) -> Iterator[None]:
    try:
        yield
    except (OSError, SafetensorError) as error:  # safetensors wraps a full disk's error
        hint = "Name a folder that you may write to, on a disk with free space"
        cause = f"cannot be written: {getattr(error, 'strerror', None) or error}"
        raise CheckpointError(str(folder), cause, hint) from error


def _publish(temporary: Path, folder: Path) -> None:
    """Rename the whole folder if `folder` does not exist, else its files one by one."""
    temporary.chmod(0o755)  # mkdtemp and safetensors make private files
    for file in temporary.iterdir():
        file.chmod(0o644)
    if not folder.exists():
        temporary.rename(folder)
        return
    for file in sorted(temporary.iterdir()):
        os.replace(file, folder / file.name)
        if file.name in OTHER_FORM:
            (folder / OTHER_FORM[file.name]).unlink(missing_ok=True)
