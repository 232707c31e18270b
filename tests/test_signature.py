"""Signatures: any change of a signed file is found, and no other key is accepted."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from artifact_samples import sample_artifact
from cryptography.hazmat.primitives import serialization as forms
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, generate_private_key
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from mmfree_compiler.artifact import read_artifact, sign
from mmfree_compiler.errors import ArtifactError, InputError, ToolchainError
from mmfree_compiler.runtime import load

PASSWORD = forms.BestAvailableEncryption(b"secret")


def private_pem(
    key: Ed25519PrivateKey, encryption: forms.KeySerializationEncryption | None = None
) -> bytes:
    form = forms.PrivateFormat.PKCS8
    return key.private_bytes(forms.Encoding.PEM, form, encryption or forms.NoEncryption())


def public_pem(key: Ed25519PrivateKey) -> bytes:
    form = forms.PublicFormat.SubjectPublicKeyInfo
    return key.public_key().public_bytes(forms.Encoding.PEM, form)


KEY, OTHER = Ed25519PrivateKey.generate(), Ed25519PrivateKey.generate()
PUBLIC = public_pem(KEY)


@pytest.fixture
def signed(tmp_path: Path) -> Path:
    path = tmp_path / "model.mmfree"
    sample_artifact().save(path)
    assert sign(path, private_pem(KEY)) == KEY.public_key().public_bytes_raw().hex()
    return path


def test_a_signed_file_holds_the_same_artifact(signed: Path, tmp_path: Path) -> None:
    """With and without asking for the signature; any unzip opens it."""
    (tmp_path / "public.pem").write_bytes(PUBLIC)
    for required in (None, PUBLIC, tmp_path / "public.pem", str(tmp_path / "public.pem")):
        read = read_artifact(signed, verify=True, require_signature=required)
        assert read.manifest == sample_artifact().manifest
    with zipfile.ZipFile(signed) as opened:
        assert opened.testzip() is None


def test_every_change_of_a_byte_is_found(signed: Path) -> None:
    sound = signed.read_bytes()
    for place in range(len(sound)):
        changed = bytearray(sound)
        changed[place] ^= 1 << place % 8
        signed.write_bytes(changed)
        with pytest.raises(ArtifactError):
            read_artifact(signed, require_signature=PUBLIC)


@pytest.mark.parametrize("change", [lambda b: b[:-1], lambda b: b + b"0", lambda b: b"\0" + b])
def test_other_lengths_are_found(signed: Path, change: object) -> None:
    assert callable(change)
    signed.write_bytes(change(signed.read_bytes()))
    with pytest.raises(ArtifactError):
        read_artifact(signed, require_signature=PUBLIC)


def test_a_changed_file_says_so(signed: Path) -> None:
    """Of a change that nothing else finds: a date in a header of ZIP."""
    data = bytearray(signed.read_bytes())
    data[10] ^= 1
    signed.write_bytes(data)
    read_artifact(signed, verify=True)
    with pytest.raises(ArtifactError, match="was changed after it was signed"):
        read_artifact(signed, require_signature=PUBLIC)


def test_the_key_has_to_be_the_required_one(signed: Path) -> None:
    with pytest.raises(ArtifactError, match=r"another key, [0-9a-f]{64}.*required one is"):
        read_artifact(signed, require_signature=public_pem(OTHER))


def test_another_key_in_the_place_of_the_signer(signed: Path) -> None:
    theirs, ours = (k.public_key().public_bytes_raw().hex().encode() for k in (OTHER, KEY))
    signed.write_bytes(signed.read_bytes().replace(ours, theirs))
    with pytest.raises(ArtifactError, match="was changed after it was signed"):
        read_artifact(signed, require_signature=public_pem(OTHER))


def test_a_file_without_a_signature(tmp_path: Path) -> None:
    sample_artifact().save(tmp_path / "model.mmfree")
    with pytest.raises(ArtifactError, match="has no signature"):
        read_artifact(tmp_path / "model.mmfree", require_signature=PUBLIC)


def test_damaged_weights_are_not_signed(signed: Path) -> None:
    weights = bytes(read_artifact(signed).members["weights.bin"])
    data = signed.read_bytes()
    place = data.index(weights)
    signed.write_bytes(data[:place] + bytes([weights[0] ^ 1]) + data[place + 1 :])
    with pytest.raises(ArtifactError, match="damaged"):
        sign(signed, private_pem(KEY))


def test_signing_again_replaces_the_signature(signed: Path) -> None:
    size = signed.stat().st_size
    sign(signed, private_pem(OTHER))
    assert signed.stat().st_size == size
    read_artifact(signed, require_signature=public_pem(OTHER))


@pytest.mark.parametrize(
    "pem",
    [
        b"",
        b"no key",
        PUBLIC,
        private_pem(KEY, PASSWORD),
        generate_private_key(SECP256R1()).private_bytes(
            forms.Encoding.PEM, forms.PrivateFormat.PKCS8, forms.NoEncryption()
        ),
    ],
    ids=["empty", "text", "public", "encrypted", "another kind"],
)
def test_what_is_no_private_key(signed: Path, pem: bytes) -> None:
    before = signed.read_bytes()
    with pytest.raises(InputError, match=r"private key.*: .* openssl genpkey"):
        sign(signed, pem)
    assert signed.read_bytes() == before


@pytest.mark.parametrize(
    "pem", [b"", b"no key", private_pem(KEY)], ids=["empty", "text", "private"]
)
def test_what_is_no_public_key(signed: Path, pem: bytes) -> None:
    with pytest.raises(InputError, match=r"public key.*: .* openssl pkey"):
        read_artifact(signed, require_signature=pem)


def test_keys_that_cannot_be_read(signed: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"private key .*absent: cannot be read: No such file"):
        sign(signed, tmp_path / "absent")
    with pytest.raises(InputError, match=r"public key .*: cannot be read: Is a directory"):
        load(signed, require_signature=tmp_path)


def test_without_the_package(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith("cryptography")]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "cryptography", None)
    with pytest.raises(ToolchainError, match=r"pip install 'mmfree-compiler\[sign\]'"):
        read_artifact(signed, require_signature=PUBLIC)
    read_artifact(signed)


def test_failing_to_write_keeps_the_file(signed: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = signed.read_bytes()

    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(ArtifactError, match="cannot be written: No space left"):
        sign(signed, private_pem(OTHER))
    assert signed.read_bytes() == before
    assert [*signed.parent.iterdir()] == [signed]


def test_keys_of_openssl_on_the_command_line(tiny_artifact: Path, tmp_path: Path) -> None:
    """As the document shows it."""
    model = tmp_path / "model.mmfree"
    model.write_bytes(tiny_artifact.read_bytes())
    for command in (
        ["openssl", "genpkey", "-algorithm", "ed25519", "-out", "key.pem"],
        ["openssl", "pkey", "-in", "key.pem", "-pubout", "-out", "public.pem"],
        [sys.executable, "-m", "mmfree_compiler", "sign", str(model), "--key", "key.pem"],
    ):
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    assert load(model, 1, require_signature=tmp_path / "public.pem")([[1, 2]])
