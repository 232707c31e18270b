"""An Ed25519 signature of a whole model.mmfree (RFC 8032), by the `cryptography` package.

It stands in the comment that ends a ZIP file: any unzip still opens a signed one. What is signed is
every byte in front of the comment and its length, and the public key. The format of the comment is
fixed, so that there is no byte of the file that could be changed unnoticed.
"""

from __future__ import annotations

import struct
from importlib import import_module
from os import PathLike
from pathlib import Path
from typing import Any

from mmfree_compiler.artifact.archive import Archive, read_archive, replacing, writable
from mmfree_compiler.artifact.mapped import sha256
from mmfree_compiler.errors import ArtifactError, InputError, ToolchainError

Key = str | PathLike[str] | bytes  # a PEM file, or what is in one

_PURPOSE = b"mmfree-compiler model 1\0"  # so that the signature stands for nothing else
_HOW = {
    "private": "openssl genpkey -algorithm ed25519 -out key.pem",
    "public": "openssl pkey -in key.pem -pubout -out public.pem",
}
_LENGTH = 2  # bytes of the comment's length, in front of it


def sign(path: str | PathLike[str], key: Key) -> str:
    """Sign model.mmfree in place, with the private `key`. Returns the public key in hex.

    All of it is read and checked first: a signature vouches for the weights too. An earlier one is
    replaced; the file is written completely or not at all. Raises ArtifactError, InputError on the
    key, ToolchainError without the cryptography package.
    """
    from mmfree_compiler.artifact.file import read_artifact  # it checks signatures

    read_artifact(path, verify=True)
    private = _read(key, "private")
    archive = read_archive(Path(path))
    public = private.public_key().public_bytes_raw()
    signature = private.sign(_message(archive, public))
    key_of_signer: str = public.hex()
    comment = f"ed25519 {key_of_signer} {signature.hex()}".encode()
    with writable(Path(path)), replacing(Path(path)) as file:
        file.write(_signed(archive).data)
        file.write(struct.pack("<H", len(comment)) + comment)
    return key_of_signer


def signer(archive: Archive) -> str | None:
    """The public key, in hex, that the archive says it is signed by, which `check` verifies."""
    return archive.comment.decode().split()[1] if archive.comment else None


def check(archive: Archive, key: Key) -> None:
    """Raise ArtifactError unless the archive is as the owner of the public `key` signed it.

    Raises InputError on the key, ToolchainError without the cryptography package.
    """
    public = _read(key, "public")
    if not archive.comment:
        hint = "Get a signed one; `mmfree sign` makes it"
        raise ArtifactError(archive.thing, "has no signature, and one is required", hint)
    owner, signature = (bytes.fromhex(part) for part in archive.comment.decode().split()[1:])
    if owner != public.public_bytes_raw():
        cause = f"is signed by another key, {owner.hex()}"
        hint = f"The required one is {public.public_bytes_raw().hex()}"
        raise ArtifactError(archive.thing, cause, hint)
    try:
        public.verify(signature, _message(archive, owner))
    except _cryptography("exceptions").InvalidSignature:
        cause = "was changed after it was signed, or its signature is forged"
        raise ArtifactError(archive.thing, cause, "Get the file again, and do not run it") from None


def _signed(archive: Archive) -> Any:
    """All bytes in front of the comment and its length."""
    return archive.file.bytes[: -_LENGTH - len(archive.comment)]


def _message(archive: Archive, public: bytes) -> bytes:
    return _PURPOSE + public + sha256(_signed(archive), archive.file.copy).digest()


def _read(key: Key, kind: str) -> Any:
    """The Ed25519 key, of kind "private" or "public", in a PEM file or in its bytes."""
    ed25519 = _cryptography("hazmat.primitives.asymmetric.ed25519")
    serialization = _cryptography("hazmat.primitives.serialization")
    options = {"password": None} if kind == "private" else {}
    try:
        text = key if isinstance(key, bytes) else Path(key).read_bytes()
        found = getattr(serialization, f"load_pem_{kind}_key")(text, **options)
    except OSError as error:
        raise _wrong(key, f"cannot be read: {error.strerror or error}", kind) from error
    except (TypeError, ValueError, _cryptography("exceptions").UnsupportedAlgorithm) as error:
        # TypeError: it is encrypted. The messages may quote nothing of a private key.
        raise _wrong(key, f"is not a {kind} key in PEM, or has a password", kind) from error
    if not isinstance(found, getattr(ed25519, f"Ed25519{kind.capitalize()}Key")):
        raise _wrong(key, "is not an Ed25519 key", kind)
    return found


def _wrong(key: Key, cause: str, kind: str) -> InputError:
    named = "" if isinstance(key, bytes) else f" {key}"
    return InputError(f"{kind} key{named}", cause, f"Make one: {_HOW[kind]}")


def _cryptography(module: str) -> Any:
    """A module of the package, which only those who use signatures have installed."""
    try:
        return import_module(f"cryptography.{module}")
    except ImportError as error:
        hint = "pip install 'mmfree-compiler[sign]'"
        raise ToolchainError("cryptography", f"does not load: {error}", hint) from error
