"""Damaged, truncated, hostile and newer files: ArtifactError, or a file that reads the same."""

from __future__ import annotations

import io
import json
import os
import struct
import tempfile
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from artifact_samples import sample_artifact
from hypothesis import given, settings
from hypothesis import strategies as st

from mmfree_compiler.artifact import archive, read_artifact, write_archive
from mmfree_compiler.elementary import ARITHMETIC
from mmfree_compiler.errors import ArtifactError


@cache
def sound() -> bytes:
    """The bytes of a sound artifact."""
    with tempfile.TemporaryDirectory() as folder:
        sample_artifact().save(Path(folder) / "model.mmfree")
        return (Path(folder) / "model.mmfree").read_bytes()


def read_bytes(data: bytes, verify: bool = True) -> Any:
    """Read `data` as an artifact; its contents as plain values."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.mmfree"
        path.write_bytes(data)
        artifact = read_artifact(path, verify)
        return artifact.manifest, {k: v.tobytes() for k, v in artifact.members.items()}


def assert_refused_or_equal(data: bytes) -> None:
    """Verified, everything is as it was; otherwise everything but the weights, and their size."""
    for verify in (True, False):
        try:
            manifest, members = read_bytes(data, verify)
        except ArtifactError:
            continue
        expected = read_bytes(sound())[1]
        if not verify:
            assert len(members["weights.bin"]) == len(expected["weights.bin"])
            expected = expected | {"weights.bin": members["weights.bin"]}
        assert (manifest, members) == (read_bytes(sound())[0], expected)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_flipped_bits(data: st.DataObject) -> None:
    damaged = bytearray(sound())
    for _ in range(data.draw(st.integers(1, 3))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    assert_refused_or_equal(bytes(damaged))


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 400), st.binary(min_size=1, max_size=8))
def test_overwritten_directory(back: int, patch: bytes) -> None:
    """The tail holds the sizes and offsets that a reader trusts."""
    at = max(0, len(sound()) - 22 - back)
    assert_refused_or_equal(sound()[:at] + patch + sound()[at + len(patch) :])


@settings(max_examples=100, deadline=None)
@given(st.data())
def test_truncated(data: st.DataObject) -> None:
    kept = data.draw(st.integers(0, len(sound()) - 1))
    with pytest.raises(ArtifactError):
        read_bytes(sound()[:kept])


@settings(max_examples=100, deadline=None)
@given(st.data(), st.binary(min_size=1, max_size=70))
def test_inserted(data: st.DataObject, extra: bytes) -> None:
    at = data.draw(st.integers(0, len(sound())))
    assert_refused_or_equal(sound()[:at] + extra + sound()[at:])


@settings(max_examples=100, deadline=None)
@given(st.binary(max_size=300))
def test_arbitrary_bytes(data: bytes) -> None:
    with pytest.raises(ArtifactError):
        read_bytes(data)


def rezip(change: Callable[[zipfile.ZipFile], None], data: bytes = b"") -> bytes:
    """The bytes of a ZIP that `change` fills."""
    buffer = io.BytesIO(data)
    with zipfile.ZipFile(buffer, "a" if data else "w") as opened:
        change(opened)
    return buffer.getvalue()


def rewritten(**changes: Any) -> bytes:
    """A sound archive of the sample's members whose manifest has `changes`."""
    _, members = read_bytes(sound())
    with zipfile.ZipFile(io.BytesIO(sound())) as opened:
        manifest = json.loads(opened.read("manifest.json"))
    text = json.dumps(manifest | changes).encode()
    return archived({"manifest.json": text, **members})


def archived(members: dict[str, bytes]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "zip"
        write_archive(path, {k: np.frombuffer(v, np.uint8) for k, v in members.items()})
        return path.read_bytes()


def test_rewriting_changes_nothing_by_itself() -> None:
    assert read_bytes(rewritten()) == read_bytes(sound())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"schema_version": 4}, "schema version 4.*reads 3.*Upgrade"),
        ({"schema_version": 2}, "schema version 2.*reads 3.*Compile the model again"),
        ({"schema_version": 0}, "schema version 0.*Compile the model again"),
        ({"schema_version": "3"}, "schema_version"),
        (
            {"arithmetic": ARITHMETIC + 1},
            f"arithmetic {ARITHMETIC + 1}.*knows {ARITHMETIC}.*Upgrade",
        ),
        ({"surprise": 1}, "surprise"),
        ({"kind": "poem"}, "kind"),
        ({"fingerprint": "0"}, "fingerprint"),
        ({"states": [{"name": "s", "shape": [1 << 60]}]}, "states"),
        ({"states": [{"name": "s", "shape": [1]}] * 2}, "two states share a name"),
        ({"inputs": []}, "inputs"),
        ({"members": {}}, "members"),
        ({"members": {"weights.bin": {"size": -1, "sha256": "0" * 64}}}, "size"),
        ({"targets": []}, "targets"),
        ({"targets": [{"target": "a", "nbytes": 0, "tensors": {"w": {}}}]}, "tensors"),
        ({"targets": [{"target": "a", "nbytes": 0, "builds": [{"name": "x", "abi": 0}]}]}, "abi"),
        ({"variants": []}, "variants"),
    ],
    ids=str,
)
def test_wrong_manifests(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ArtifactError, match=message):
        read_bytes(rewritten(**changes))


@pytest.mark.parametrize(
    "text",
    [b"", b"[]", b"{", b"\xff\xfe", b"null", b"[" * 100_000, b'{"schema_version": 1e99}'],
    ids=lambda text: repr(text[:12]),
)
def test_texts_that_are_not_manifests(text: bytes) -> None:
    with pytest.raises(ArtifactError, match="manifest"):
        read_bytes(archived({"manifest.json": text, "weights.bin": b""}))


def test_a_manifest_of_the_first_schema() -> None:
    """Its other fields are not looked at: they were others."""
    text = json.dumps({"schema_version": 1, "variants": [], "state_width": 32}).encode()
    with pytest.raises(ArtifactError, match=r"schema version 1.*Compile the model again"):
        read_bytes(archived({"manifest.json": text, "weights.bin": b""}))


def test_wrong_hashes_are_found_and_that_of_weights_when_asked() -> None:
    _, members = read_bytes(sound())
    with zipfile.ZipFile(io.BytesIO(sound())) as opened:
        manifest = opened.read("manifest.json")
    for name, content in members.items():
        changed = members | {name: bytes(len(content))}
        data = archived({"manifest.json": manifest, **changed})
        with pytest.raises(ArtifactError, match=f"{name} is damaged"):
            read_bytes(data)
        if name == "weights.bin":
            assert read_bytes(data, verify=False)[1] == changed
        else:
            with pytest.raises(ArtifactError, match=f"{name} is damaged"):
                read_bytes(data, verify=False)


def test_added_and_missing_members() -> None:
    _, members = read_bytes(sound())
    with zipfile.ZipFile(io.BytesIO(sound())) as opened:
        manifest = opened.read("manifest.json")
    for changed in (members | {"extra": b"1"}, {"weights.bin": members["weights.bin"]}):
        with pytest.raises(ArtifactError, match="differ"):
            read_bytes(archived({"manifest.json": manifest, **changed}))


def compressed(opened: zipfile.ZipFile) -> None:
    opened.writestr("manifest.json", bytes(1 << 20), zipfile.ZIP_DEFLATED)


# what -> (what the error says, the bytes)
HOSTILE: dict[str, tuple[str, Callable[[], bytes]]] = {
    "a compressed member": ("malformed member", lambda: rezip(compressed)),
    "a duplicate member": (
        "duplicate members",
        lambda: rezip(lambda z: z.writestr("manifest.json", b"{}"), sound()),
    ),
    "a comment": ("does not end", lambda: sound()[:-2] + b"\x05\x00hello"),
    "bytes in front": ("malformed member", lambda: bytes(64) + sound()),
    "bytes behind": ("does not end", lambda: sound() + bytes(64)),
    "too many members": ("more than 64", lambda: archived({f"m{i}": b"" for i in range(100)})),
    "a huge directory": ("does not end", lambda: archived({f"{i:0200}": b"" for i in range(500)})),
    "an absolute name": ("malformed member", lambda: archived({"/etc/passwd": b""})),
    "a parent folder": ("malformed member", lambda: archived({"a/../../b": b""})),
    "a hidden name": ("malformed member", lambda: archived({".bashrc": b""})),
    "a backslash": ("malformed member", lambda: archived({"a\\b": b""})),
    "an empty name": ("malformed member", lambda: archived({"": b""})),
    "an encrypted member": ("malformed member", lambda: set_flags(1)),
    "a data descriptor": ("malformed member", lambda: set_flags(8)),
    "a lying size": ("malformed member", lambda: set_central("<L", 24, 1 << 30)),
    "a lying offset": ("malformed member", lambda: set_central("<L", 42, 64)),
    "a lying end64 size": ("does not end", lambda: with_end64(1 << 40)),
    "only an end record": ("malformed directory", lambda: sound()[-22:]),
    "an empty archive": ("no manifest", lambda: b"PK\x05\x06" + bytes(18)),
}


def set_central(form: str, offset: int, value: int) -> bytes:
    """The sound archive with a field of its first central header changed."""
    data = bytearray(sound())
    struct.pack_into(form, data, data.index(b"PK\x01\x02") + offset, value)
    return bytes(data)


def set_flags(flags: int) -> bytes:
    """The sound archive with general-purpose flags set in both headers of its first member."""
    data = bytearray(set_central("<H", 8, flags))
    struct.pack_into("<H", data, 6, flags)
    return bytes(data)


def with_end64(size: int) -> bytes:
    """The sound archive with a ZIP64 end record that claims a directory of `size` bytes."""
    body, end = sound()[:-22], sound()[-22:]
    start = body.index(b"PK\x01\x02")
    record = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, 4, 4, size, start)
    locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, len(body), 1)
    return body + record + locator + end


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_archives(name: str) -> None:
    message, make = HOSTILE[name]
    with pytest.raises(ArtifactError, match=message):
        read_bytes(make())


def test_end64_of_the_true_size_is_read() -> None:
    """So that the refusal of a lying one is known to be for its lie."""
    size = len(sound()) - 22 - sound().index(b"PK\x01\x02")
    assert read_bytes(with_end64(size)) == read_bytes(sound())


def test_overlapping_members() -> None:
    """Two directory entries for the same bytes: the second is not where the first ends."""
    data = sound()
    start, end = data.index(b"PK\x01\x02"), len(data) - 22
    second = data.index(b"PK\x01\x02", start + 4)
    first = data[start:second]
    tail = bytearray(data[end:])
    struct.pack_into("<2HL", tail, 8, 5, 5, end - start + len(first))
    with pytest.raises(ArtifactError, match="duplicate"):
        read_bytes(data[:end] + first + bytes(tail))
    renamed = first.replace(b"manifest.json", b"manifest.jsom")
    with pytest.raises(ArtifactError, match="malformed member"):
        read_bytes(data[:end] + renamed + bytes(tail))


def test_paths_that_are_not_regular_files(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for path in (tmp_path, tmp_path / "pipe"):
        with pytest.raises(ArtifactError, match="is not a regular file"):
            read_artifact(path)
    with pytest.raises(ArtifactError, match="does not exist"):
        read_artifact(tmp_path / "absent")
    with pytest.raises(ArtifactError, match="File name too long"):
        read_artifact(tmp_path / ("a" * 300))


def test_crc_of_named_members_only(tmp_path: Path) -> None:
    path = tmp_path / "zip"
    write_archive(path, {"a": np.arange(9, dtype=np.uint8), "b": np.arange(9, dtype=np.uint8)})
    data = bytearray(path.read_bytes())
    data[data.rindex(bytes(range(9)))] ^= 1
    path.write_bytes(data)
    assert archive.read_archive(path, crc={"a"}).members["b"][0] == 1
    with pytest.raises(ArtifactError, match="CRC-32"):
        archive.read_archive(path, crc={"b"})
