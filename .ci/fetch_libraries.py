"""Fetches the JavaScript libraries of the explain page from npm, as their table pins them.

Run by `make libraries`, after a change of mmfree_compiler/explaining/web/libraries/libraries.toml.
"""

from __future__ import annotations

import base64
import hashlib
import io
import tarfile
import tomllib
import urllib.request
from pathlib import Path

FOLDER = Path(__file__).resolve().parents[1] / "mmfree_compiler/explaining/web/libraries"
LICENCES = ("LICENSE", "LICENSE.md")


def package(name: str, version: str, integrity: str) -> dict[str, bytes]:
    """The files of a package on npm, by their path in it."""
    base = name.rpartition("/")[2]
    url = f"https://registry.npmjs.org/{name}/-/{base}-{version}.tgz"
    with urllib.request.urlopen(url, timeout=60) as response:
        content = response.read()
    found = "sha512-" + base64.b64encode(hashlib.sha512(content).digest()).decode()
    if found != integrity:
        raise SystemExit(f"{url}: its integrity is {found}, not {integrity}")
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        members = [(member.name, archive.extractfile(member)) for member in archive]
        return {path.partition("/")[2]: file.read() for path, file in members if file}


def fetch(name: str, pinned: dict[str, str]) -> None:
    """Write a library's file, if it has one of its own, and its licence."""
    files = package(name, pinned["version"], pinned["integrity"])
    base = name.rpartition("/")[2]
    licence = next(files[path] for path in LICENCES if path in files)
    (FOLDER / f"{base}.LICENSE").write_bytes(licence)
    if "file" in pinned:
        (FOLDER / Path(pinned["file"]).name).write_bytes(files[pinned["file"]])


if __name__ == "__main__":
    for library, pins in tomllib.loads((FOLDER / "libraries.toml").read_text()).items():
        fetch(library, pins)
