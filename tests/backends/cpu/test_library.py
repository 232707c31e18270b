"""Loading a library where there is no place for its file, and telling that from a bad library."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from mmfree_compiler.artifact import read_artifact
from mmfree_compiler.backends.cpu.run import library
from mmfree_compiler.errors import ArtifactError, TargetError

# A process that has neither a temporary folder nor files in memory, unless asked for.
BARE = """
import os, sys, tempfile
from mmfree_compiler.errors import MmfreeError
from mmfree_compiler.runtime import load
tempfile.tempdir = sys.argv[2]
if "memory" not in sys.argv:
    del os.memfd_create
try:
    print(load(sys.argv[1], 1)([[1, 2]])[0].shape)
except MmfreeError as error:
    print(repr(error))
"""


@pytest.fixture(scope="module")
def code(tiny_artifact: Path) -> NDArray[np.uint8]:
    return read_artifact(tiny_artifact).members["kernels/portable.so"]


def bare(path: Path, folder: str, *words: str) -> str:
    command = [sys.executable, "-c", BARE, str(path), folder, *words]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def test_no_temporary_folder_is_needed(tiny_artifact: Path, tmp_path: Path) -> None:
    assert bare(tiny_artifact, str(tmp_path / "absent"), "memory").startswith("(1, 2, ")


def test_a_temporary_folder_is_enough(tiny_artifact: Path, tmp_path: Path) -> None:
    assert bare(tiny_artifact, str(tmp_path)).startswith("(1, 2, ")
    assert [*tmp_path.iterdir()] == []


@pytest.mark.parametrize("folder", ["absent", "/proc", "/dev/null"])
def test_without_any_place_the_error_says_what_to_set(tiny_artifact: Path, folder: str) -> None:
    found = bare(tiny_artifact, folder)
    assert found.startswith("TargetError('this machine: cannot load code")
    assert "Set TMPDIR" in found


def test_a_place_that_may_not_hold_code(
    code: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one mounted noexec: there it is dlopen that fails."""

    def load(path: str, _: str) -> None:
        raise RuntimeError(
            f"Failed to load {path} {path}: failed to map segment from shared object"
        )

    monkeypatch.setattr(library, "_LOAD", load)
    with pytest.raises(TargetError, match=r"failed to map.*; .*failed to map.*TMPDIR.*noexec"):
        library.load_library(code)


@pytest.mark.parametrize("count", [0, 1, 100])
def test_what_is_no_library_is_not_blamed_on_the_place(count: int) -> None:
    with pytest.raises(ArtifactError, match="kernels' library: does not load"):
        library.load_library(np.zeros(count, np.uint8))


def test_a_place_is_never_taken_for_an_earlier_one(code: NDArray[np.uint8]) -> None:
    """The number of a closed file is used again, while its library is still loaded."""
    paths = []

    @contextmanager
    def watched(data: NDArray[np.uint8]) -> Iterator[str]:
        with library._in_memory(data) as path:
            paths.append(path)
            yield path

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(library, "_PLACES", (watched,))
        loaded = [library.load_library(code) for _ in range(9)]
    assert len({os.path.basename(path) for path in paths}) == 1
    assert len(set(paths)) == len(loaded)
    maps = Path("/proc/self/maps").read_text().splitlines()
    inodes = {line.split()[4] for line in maps if "memfd:mmfree-kernels" in line}
    assert len(inodes) >= len(loaded)
