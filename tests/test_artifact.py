"""model.mmfree: what is written is what is read, and nothing is ever half written."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from artifact_samples import KERNEL, sample_artifact, sample_constants, sample_fields
from pydantic import ValidationError

from mmfree_compiler.artifact import (
    ALIGNMENT,
    Artifact,
    TargetEntry,
    aligned_empty,
    archive,
    check_writable,
    pack_constants,
    read_artifact,
)
from mmfree_compiler.errors import ArtifactError
from mmfree_compiler.program import Array, Constant


def test_round_trip(tmp_path: Path) -> None:
    artifact = sample_artifact()
    artifact.save(tmp_path / "model.mmfree")
    loaded = read_artifact(tmp_path / "model.mmfree")
    assert loaded.manifest == artifact.manifest
    assert {k: v.tobytes() for k, v in loaded.members.items()} == {
        k: v.tobytes() for k, v in artifact.members.items()
    }
    assert [path.name for path in tmp_path.iterdir()] == ["model.mmfree"]


def test_tensors_are_views_with_parts_first(tmp_path: Path) -> None:
    sample_artifact().save(tmp_path / "model.mmfree")
    loaded = read_artifact(tmp_path / "model.mmfree")
    for constant in sample_constants():
        tensor = loaded.tensor(constant.name)
        assert np.array_equal(tensor, np.stack(constant.parts))
        assert np.shares_memory(tensor, loaded.members["weights.bin"])
        assert not tensor.flags.writeable
    with pytest.raises(ArtifactError, match="nothing"):
        loaded.tensor("nothing")


def table_artifact(**changes: object) -> tuple[Artifact, Array]:
    """An artifact of one table; and the table's bytes, (parts, rows, bytes per row)."""
    parts = tuple(np.arange(160, dtype=np.uint16).reshape(10, 16) + 1000 * i for i in range(2))
    constant = Constant("table", "bfloat16", (10, 16), parts, role="table")
    weights, tensors = pack_constants((constant,))
    tensors = {name: entry.model_copy(update=changes) for name, entry in tensors.items()}
    entry = TargetEntry(target="cpu", nbytes=weights.size, tensors=tensors)
    fields = sample_fields() | {"targets": (entry,)}
    return Artifact.build({"weights.bin": weights}, **fields), np.stack(parts).view(np.uint8)


def rows_of(artifact: Artifact, ids: list[int]) -> Array:
    table = artifact.table("table")
    return table.read(np.array(ids), np.zeros((8, *table.row_shape), np.uint8))


def test_rows_of_a_table(tmp_path: Path) -> None:
    """In memory and from a file, which may since have got another name or none."""
    artifact, expected = table_artifact()
    path = tmp_path / "model.mmfree"
    artifact.save(path)
    loaded = read_artifact(path)
    ids = [9, 0, 3, 3]
    for one in (artifact, loaded):
        assert np.array_equal(rows_of(one, ids), expected[:, ids].swapaxes(0, 1))
    path.unlink()
    assert np.array_equal(rows_of(loaded, ids), expected[:, ids].swapaxes(0, 1))
    with pytest.raises(ArtifactError, match="nothing"):
        loaded.table("nothing")


def test_a_file_that_became_shorter_is_an_artifact_error(tmp_path: Path) -> None:
    path = tmp_path / "model.mmfree"
    table_artifact()[0].save(path)
    loaded = read_artifact(path)
    os.truncate(path, 100)
    with pytest.raises(ArtifactError, match=r"model\.mmfree: .* become shorter"):
        rows_of(loaded, [9])


def test_an_artifact_closes_its_file(tmp_path: Path) -> None:
    table_artifact()[0].save(tmp_path / "model.mmfree")
    before = os.listdir("/proc/self/fd")
    loaded = read_artifact(tmp_path / "model.mmfree")
    assert len(os.listdir("/proc/self/fd")) > len(before)
    del loaded
    assert len(os.listdir("/proc/self/fd")) == len(before)


@pytest.mark.parametrize(
    "changes",
    [
        {"shape": (9, 16), "nbytes": 576},  # fewer rows than ids
        {"shape": (9, 16), "layout": "padded"},  # 640 bytes are not 2 x 9 rows
        {"nbytes": 636, "layout": "padded"},
    ],
    ids=str,
)
def test_tables_hold_a_row_for_every_id(changes: dict[str, object]) -> None:
    with pytest.raises(ValidationError, match="rows"):
        table_artifact(**changes)


@pytest.mark.parametrize("zip64_from", [0, 1 << 30], ids=["zip64", "zip"])
def test_members_are_aligned_and_any_unzip_opens_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, zip64_from: int
) -> None:
    monkeypatch.setattr(archive, "_ZIP64_FROM", zip64_from)
    artifact = sample_artifact()
    artifact.save(tmp_path / "model.mmfree")
    for data in read_artifact(tmp_path / "model.mmfree").members.values():
        assert data.ctypes.data % ALIGNMENT == 0
    with zipfile.ZipFile(tmp_path / "model.mmfree") as opened:
        assert opened.testzip() is None
        assert opened.read(KERNEL) == artifact.members[KERNEL].tobytes()
        assert json.loads(opened.read("manifest.json"))["schema_version"] == 3


def test_equal_artifacts_make_equal_bytes(tmp_path: Path) -> None:
    sample_artifact().save(tmp_path / "a")
    sample_artifact().save(tmp_path / "b")
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_saving_over_the_file_that_is_mapped(tmp_path: Path) -> None:
    path = tmp_path / "model.mmfree"
    sample_artifact().save(path)
    loaded = read_artifact(path)
    before = loaded.members["weights.bin"].tobytes()
    loaded.save(path)
    assert loaded.members["weights.bin"].tobytes() == before
    assert read_artifact(path).manifest == loaded.manifest


def test_interrupted_save_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.mmfree"
    path.write_bytes(b"old")

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        sample_artifact().save(path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.mmfree"]
    assert path.read_bytes() == b"old"


def test_full_disk_is_an_artifact_error_and_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "model.mmfree"
    path.write_bytes(b"old")
    program = (
        "import resource, sys\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from artifact_samples import sample_artifact\n"
        "from mmfree_compiler.errors import ArtifactError\n"
        "artifact = sample_artifact()\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "try:\n"
        f"    artifact.save({str(path)!r})\n"
        "except ArtifactError as error:\n"
        "    sys.exit(0 if 'cannot be written' in str(error) else 1)\n"
        "sys.exit(2)\n"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    assert [entry.name for entry in tmp_path.iterdir()] == ["model.mmfree"]
    assert path.read_bytes() == b"old"


def test_names_of_any_length(tmp_path: Path) -> None:
    longest = tmp_path / ("a" * 255)  # what Linux's file systems take
    check_writable(longest)
    sample_artifact().save(longest)
    assert [*tmp_path.iterdir()] == [longest]
    with pytest.raises(ArtifactError, match="cannot be written: File name too long"):
        check_writable(tmp_path / ("a" * 256))


def test_saving_into_no_folder_is_an_artifact_error(tmp_path: Path) -> None:
    with pytest.raises(ArtifactError, match="cannot be written"):
        sample_artifact().save(tmp_path / "absent" / "model.mmfree")


@pytest.mark.parametrize("name", [".", "", "folder", "pipe", "a\0b", "a" * 5000])
def test_what_is_not_a_file_is_not_replaced(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")  # as a device is
    with pytest.raises(ArtifactError, match="cannot be written"):
        sample_artifact().save(tmp_path / name)
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["folder", "pipe"]
    assert (tmp_path / "pipe").is_fifo()


def test_aligned_empty() -> None:
    for shape in (3, (5, 7), (2, 3, 4)):
        array = aligned_empty(shape, np.float32)
        assert array.ctypes.data % ALIGNMENT == 0
        assert array.flags.c_contiguous
        assert array.dtype == np.float32
        assert array.shape == ((shape,) if isinstance(shape, int) else shape)
