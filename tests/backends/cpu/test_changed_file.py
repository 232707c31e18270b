"""A model.mmfree that is changed while a session uses it: an error, or no difference at all."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmfree_compiler.errors import ArtifactError
from mmfree_compiler.runtime import load

IDS = np.arange(6)[None]


def truncate(path: Path) -> None:
    os.truncate(path, 0)


def overwrite(path: Path) -> None:
    """One of equal size, in place."""
    path.write_bytes(bytes(path.stat().st_size))


def append(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"more")


def replace(path: Path) -> None:
    path.with_name("new").write_bytes(b"new")
    path.with_name("new").replace(path)


@pytest.fixture
def model(tiny_artifact: Path, tmp_path: Path) -> Path:
    path = tmp_path / "model.mmfree"
    path.write_bytes(tiny_artifact.read_bytes())
    return path


@pytest.mark.parametrize("change", [truncate, overwrite, append])
def test_a_change_in_place_is_an_error(model: Path, change: Callable[[Path], None]) -> None:
    """Before a kernel reads a page that is gone, which would end the process."""
    session, other = load(model, 1), load(model, 1)
    session(IDS)
    change(model)
    for one in (session, other):
        with pytest.raises(ArtifactError, match=r"model\.mmfree: was changed after it was loaded"):
            one(IDS)


@pytest.mark.parametrize("change", [replace, Path.unlink])
def test_another_file_in_its_place_is_no_change(
    model: Path, change: Callable[[Path], None]
) -> None:
    session = load(model, 1)
    before = session(IDS)[0]
    change(model)
    assert np.array_equal(session(IDS)[0], before)
