"""ZIP files whose members are uncompressed and 64-byte aligned, so that they can be mapped.

The writer is `zipfile` with added padding. The reader accepts only files as the writer makes them:
members back to back from the first byte to the directory, with no other bytes anywhere.
"""

from __future__ import annotations

import os
import re
import secrets
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Container, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from mmfree_compiler.artifact.mapped import Bytes, MappedFile
from mmfree_compiler.artifact.weights import ALIGNMENT
from mmfree_compiler.errors import ArtifactError, InputError

MAX_MEMBERS = 64
_MAX_DIRECTORY = 1 << 16  # bytes of central directory that zipfile is allowed to parse
_NAME = re.compile(r"[\w-][\w.-]*(/[\w-][\w.-]*)*", re.ASCII)  # relative, no ".."

# The only comment at the end of a file: see signature.py. In hex: the public key, the signature.
_SIGNATURE = re.compile(rb"ed25519 [0-9a-f]{64} [0-9a-f]{128}\Z")
_SIGNATURE_SIZE = 8 + 64 + 1 + 128

# signature, version, flags, method, time, date, CRC-32, two sizes, lengths of the name and extra
_LOCAL = struct.Struct("<4s5H3L2H")
_ZIP64_SIZES = struct.Struct("<HHQQ")
_PADDING = struct.Struct("<HHH")  # id, size, alignment: the field of Android's zipalign
_PADDING_ID = 0xD935
_ZIP64_FROM = 1 << 30  # well below where zipfile itself would choose the 64-bit form
_LONG = 0xFFFFFFFF

# What zipfile raises on a malformed directory.
_MALFORMED = (
    zipfile.BadZipFile,
    NotImplementedError,
    ValueError,
    struct.error,
    OverflowError,
    EOFError,
)
_REMAKE = "Get or compile the file again"


def as_path(path: object) -> Path:
    """`path` as a Path. Raises InputError unless it is one, or a string."""
    if not isinstance(path, str | os.PathLike):
        raise InputError(f"path {path!r}", "is not a path", "Pass a string or a pathlib.Path")
    return Path(path)


@contextmanager
def replacing(path: Path) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` when the block succeeds.

    It is written under a temporary name in the same folder, flushed to disk and renamed. When the
    block fails, also by Ctrl-C, it is removed and the file at `path` stays. Raises OSError.
    """
    # A short name: the name of `path` may be as long as the file system allows.
    temporary = path.with_name(f".mmfree-{secrets.token_hex(4)}.tmp")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise


def write_archive(path: Path, members: Mapping[str, Bytes]) -> None:
    """Write `members` (1-D uint8) in order, 64-byte aligned. Equal members give equal files.

    Raises ArtifactError when the file cannot be written; `path` is then unchanged.
    """
    with writable(path), replacing(path) as file, zipfile.ZipFile(file, "w") as archive:
        for name, data in members.items():
            large = data.nbytes >= _ZIP64_FROM
            entry = _entry(name, data.nbytes, file.tell(), large)
            with archive.open(entry, "w", force_zip64=large) as member:
                member.write(data.data)


def check_writable(path: Path) -> None:
    """Raise ArtifactError now if `write_archive` could not write a file at `path`."""
    with writable(path), tempfile.TemporaryFile(dir=path.parent):
        pass


@contextmanager
def writable(path: Path) -> Iterator[None]:
    """Raise ArtifactError when `path` cannot be written, or when the block raises OSError."""
    try:
        if path.is_dir():
            raise _unwritable(path, "is a folder", "Name a file in it")
        if (path.exists() and not path.is_file()) or "\0" in str(path):
            # Renaming over a device would remove it.
            raise _unwritable(path, "is not a regular file", "Name another file")
        if not path.parent.is_dir():
            raise _unwritable(path, "its folder does not exist", "Create it first")
        yield
    except OSError as error:
        hint = "Choose a folder with write access and free space"
        raise _unwritable(path, error.strerror or str(error), hint) from error


def _unwritable(path: Path, cause: str, hint: str) -> ArtifactError:
    return ArtifactError(repr(str(path)), f"cannot be written: {cause}", hint)


def _entry(name: str, size: int, offset: int, large: bool) -> zipfile.ZipInfo:
    """The entry of a member whose local header is at `offset`, padded to align the data."""
    entry = zipfile.ZipInfo(name)  # dated 1980-01-01, the earliest date in ZIP
    entry.create_system = 3  # Unix, on every system: equal bytes everywhere
    entry.external_attr = 0o644 << 16
    entry.file_size = size
    header = offset + _LOCAL.size + len(name) + _PADDING.size + large * _ZIP64_SIZES.size
    padding = -header % ALIGNMENT
    entry.extra = _PADDING.pack(_PADDING_ID, 2 + padding, ALIGNMENT) + bytes(padding)
    return entry


@dataclass(frozen=True)
class Archive:
    """A mapped file, and its members by name: read-only 1-D uint8 views, 64-byte aligned.

    `thing` is its name in errors. `comment`, the end of the file, is empty or a signature.
    """

    thing: str
    file: MappedFile = field(repr=False)
    members: dict[str, Bytes] = field(repr=False)
    comment: bytes = b""


def read_archive(path: Path, crc: Container[str] = (), remake: str = _REMAKE) -> Archive:
    """Map the file at `path`.

    The CRC-32 of the members named in `crc` is verified; other members are not read. Raises
    ArtifactError when the file is missing, unreadable or not a well-formed archive of this kind;
    `remake` is its hint for files that are damaged.
    """
    try:
        if not path.is_file():  # opening a pipe would wait forever
            cause = "is not a regular file" if path.exists() else "does not exist"
            raise ArtifactError(str(path), cause, "Check the path")
        with path.open("rb") as file:
            return _read(str(path), file, crc, remake)
    except OSError as error:
        cause = f"cannot be read: {error.strerror or error}"
        raise ArtifactError(str(path), cause, "Check the path and its permissions") from error


def _read(thing: str, file: BinaryIO, crc: Container[str], remake: str) -> Archive:
    if os.fstat(file.fileno()).st_size < zipfile.sizeEndCentDir:  # type: ignore[attr-defined]
        raise ArtifactError(thing, "is too short to be an archive", remake)
    source = MappedFile(thing, file.fileno())
    mapped = source.bytes
    comment = _comment(mapped)
    if not _directory_is_small(mapped, len(comment)):
        raise ArtifactError(thing, "does not end in the directory of an archive", remake)
    try:
        with zipfile.ZipFile(file) as archive:
            entries, directory = archive.infolist(), archive.start_dir
    except _MALFORMED as error:
        raise ArtifactError(thing, f"has a malformed directory: {error}", remake) from error
    if len(entries) > MAX_MEMBERS or len({entry.filename for entry in entries}) < len(entries):
        cause = f"has duplicate members or more than {MAX_MEMBERS}"
        raise ArtifactError(thing, cause, remake)
    members: dict[str, Bytes] = {}
    position = 0
    for entry in entries:
        start = _data_start(entry, mapped, position)
        position = start + entry.file_size
        if not 0 < start <= position <= directory:
            cause = f"has a malformed member {entry.filename[:80]!r}"
            raise ArtifactError(thing, cause, remake)
        members[entry.filename] = mapped[start:position]
        if entry.filename in crc and zlib.crc32(mapped[start:position].data) != entry.CRC:
            raise ArtifactError(thing, f"{entry.filename} is damaged (CRC-32)", remake)
    if position != directory:
        raise ArtifactError(thing, "has bytes that belong to no member", remake)
    return Archive(thing, source, members, comment)


def _comment(mapped: Bytes) -> bytes:
    """The signature that ends the file, if one does; no other comment is accepted."""
    found = _SIGNATURE.search(mapped[-_SIGNATURE_SIZE:].tobytes())
    return found[0] if found else b""


def _directory_is_small(mapped: Bytes, comment: int) -> bool:
    """Whether the file ends in an end record, and a comment, of a directory within the limit.

    zipfile would read a directory of any size into memory, so this checks its records first.
    """
    records = mapped[: len(mapped) - comment]
    tail = records[-98:].tobytes()
    end, locator, end64 = tail[-22:], tail[-42:-22], tail[-98:-42]
    if len(end) < 22:
        return False
    size = struct.unpack_from("<L", end, 12)[0]
    if locator.startswith(b"PK\x06\x07"):
        if len(tail) < 98 or struct.unpack_from("<Q", locator, 8)[0] != len(records) - 98:
            return False
        size = struct.unpack_from("<Q", end64, 40)[0]
    ends_well = end.startswith(b"PK\x05\x06") and end.endswith(struct.pack("<H", comment))
    return ends_well and size <= _MAX_DIRECTORY


def _data_start(entry: zipfile.ZipInfo, mapped: Bytes, position: int) -> int:
    """The start of the data of `entry`, or -1 if it is not an uncompressed member at `position`.

    The central and the local header must agree, and the data must be aligned.
    """
    name, size = entry.filename, entry.file_size
    header = mapped[position : position + _LOCAL.size].tobytes()
    if len(header) < _LOCAL.size or not _NAME.fullmatch(name) or name != entry.orig_filename:
        return -1
    signature, _, flags, method, _, _, crc, packed, unpacked, name_size, extra_size = _LOCAL.unpack(
        header
    )
    extra_at = position + _LOCAL.size + name_size
    start = extra_at + extra_size
    extra = mapped[extra_at:start].tobytes()
    in_extra = extra.endswith(_ZIP64_SIZES.pack(1, 16, size, size))
    well_formed = (
        entry.header_offset == position
        and signature == b"PK\x03\x04"
        and flags == entry.flag_bits == 0
        and method == entry.compress_type == zipfile.ZIP_STORED
        and crc == entry.CRC
        and entry.compress_size == size
        and ((packed, unpacked) == (size, size) or (in_extra and packed == unpacked == _LONG))
        and mapped[position + _LOCAL.size : extra_at].tobytes() == name.encode()
        and start % ALIGNMENT == 0
    )
    return start if well_formed else -1
