"""Kernels run with the manifest that they were made for: any other is refused before they load."""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import pytest
from artifact_samples import KERNEL, sample_artifact
from manifest_changes import changes, manifest_of, with_manifest

from mmfree_compiler import backends
from mmfree_compiler.artifact import binding, read_artifact
from mmfree_compiler.backends.cpu.run import launcher
from mmfree_compiler.errors import ArtifactError, MmfreeError
from mmfree_compiler.runtime import load

TRIED = 300  # of the changes of a manifest, and all those of the facts of its build


class LoadedError(Exception):
    """A library would have been loaded."""


def test_every_change_of_the_manifest_is_refused(
    tiny_artifact: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However consistent it is: nothing of the library is executed. Defaults may be left out."""

    def refuse(_: object) -> None:
        raise LoadedError

    monkeypatch.setattr(launcher, "load_library", refuse)
    sound, found = read_artifact(tiny_artifact).manifest, list(changes(manifest_of(tiny_artifact)))
    random.Random(0).shuffle(found)
    found.sort(key=lambda change: "facts" not in change[0])  # stable: these first
    consistent = 0
    for _, document in found[:TRIED]:
        path = with_manifest(tiny_artifact, json.dumps(document), tmp_path / "changed")
        try:
            load(path, 1)
        except LoadedError:
            assert read_artifact(path).manifest == sound
        except MmfreeError as error:
            consistent += "was not made for this manifest" in str(error)
    assert consistent > TRIED / 10


def test_another_spelling_of_the_manifest_is_the_same_manifest(
    tiny_artifact: Path, tmp_path: Path
) -> None:
    text = json.dumps(dict(reversed(manifest_of(tiny_artifact).items())), indent=7)
    session = load(with_manifest(tiny_artifact, text, tmp_path / "spelled"), 1)
    ids = np.arange(5)[None]
    assert np.array_equal(session(ids)[0], load(tiny_artifact, 1)(ids)[0])


def test_code_of_another_artifact_is_refused(tiny_artifact: Path) -> None:
    """Also by inspect, which executes nothing."""
    artifact = read_artifact(tiny_artifact)
    name = "kernels/portable.so"
    other = artifact.rebuilt({}, notes=())
    swapped = {**artifact.members, name: other.members[name]}
    assert swapped[name].size == artifact.members[name].size
    wrong = type(artifact)(artifact.manifest, swapped)
    with pytest.raises(ArtifactError, match="not made for this manifest"):
        launcher.CpuLauncher.open(wrong, 1)
    with pytest.raises(ArtifactError, match="not made for this manifest"):
        backends.get("cpu").describe(wrong)


@pytest.mark.parametrize("code", [b"", b"\x7fELF", binding.NOTE, binding.NOTE + bytes(31)], ids=len)
def test_code_without_a_note_belongs_to_no_manifest(code: bytes) -> None:
    manifest = sample_artifact().manifest
    assert binding.bound(code, bytes(32)) == code
    with pytest.raises(ArtifactError, match=r"kernels\.so: was not made"):
        binding.check("kernels.so", code, manifest)


def test_every_member_but_code_is_part_of_the_digest() -> None:
    artifact = sample_artifact()
    for name, data in artifact.members.items():
        changed = artifact.rebuilt({name: bytes(data.size)})
        same = binding.digest(changed.manifest) == binding.digest(artifact.manifest)
        assert same == (name == KERNEL)
