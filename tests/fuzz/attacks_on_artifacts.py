"""Attacks on artifacts and states: each writes a mutated file and tries to use it."""

from __future__ import annotations

import hashlib
import json
import random
import zipfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from fuzz import texts, trees
from fuzz.attempt import Attack, Attempt
from fuzz.samples import Answers, answers, continued, equal, samples
from mmfree_compiler.artifact import read_archive, write_archive


@cache
def expected(path: Path) -> Answers:
    """The answers of a sound artifact."""
    return answers(path)


def _same_or_wrong(found: Answers, wanted: Answers) -> str:
    return "same" if equal(found, wanted) else "wrong"


def _changed(_: Answers) -> str:
    """The numbers are another model's or state's, so any answer will do."""
    return "changed"


def _members(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def _write(path: Path, members: dict[str, bytes]) -> None:
    write_archive(path, {name: np.frombuffer(data, np.uint8) for name, data in members.items()})


def _manifest(change: Callable[[random.Random, Any], bytes]) -> Attack:
    """A false manifest in an otherwise sound artifact."""

    def attack(rng: random.Random, folder: Path) -> Attempt:
        source, path = rng.choice(samples().artifacts), folder / "model.mmfree"
        members = _members(source)
        manifest = json.loads(members["manifest.json"])
        members["manifest.json"] = change(rng, manifest)
        _write(path, members)
        change_made = f"{source.name}: {trees.difference(manifest, members['manifest.json'])}"
        return Attempt(change_made, lambda: _same_or_wrong(answers(path), expected(source)))

    return attack


def _numbers(rng: random.Random, folder: Path) -> Attempt:
    """Other weights under a true hash: another model, which must run, whatever it says."""
    source, path = rng.choice(samples().artifacts), folder / "model.mmfree"
    members = _members(source)
    data = bytearray(members["weights.bin"])
    for _ in range(rng.choice((1, 10, 1000))):
        data[rng.randrange(len(data))] = rng.randrange(256)
    manifest = json.loads(members["manifest.json"])
    manifest["members"]["weights.bin"]["sha256"] = hashlib.sha256(data).hexdigest()
    members |= {"weights.bin": bytes(data), "manifest.json": json.dumps(manifest).encode()}
    _write(path, members)
    return Attempt(f"{source.name}: other weights", lambda: _changed(answers(path)))


def _members_damaged(rng: random.Random, folder: Path) -> Attempt:
    """A member's bytes change, and the archive's CRC with them, but not the hash."""
    source, path = rng.choice(samples().artifacts), folder / "model.mmfree"
    members = _members(source)
    name = rng.choice([name for name in members if name not in ("manifest.json", "weights.bin")])
    members[name] = texts.mutated(rng, members[name])
    _write(path, members)
    return Attempt(
        f"{source.name}: {name}", lambda: _same_or_wrong(answers(path), expected(source))
    )


def _exchanged(rng: random.Random, folder: Path) -> Attempt:
    """A member of the other artifact, under a true size and hash."""
    source, other = rng.sample(samples().artifacts, 2)
    path, members, others = folder / "model.mmfree", _members(source), _members(other)
    manifest = json.loads(members["manifest.json"])
    name = rng.choice([name for name in manifest["members"] if name in others])
    members[name] = others[name]
    digest = hashlib.sha256(members[name]).hexdigest()
    manifest["members"][name] = {"size": len(members[name]), "sha256": digest}
    members["manifest.json"] = json.dumps(manifest).encode()
    _write(path, members)
    made = f"{name} of {other.name} in {source.name}"
    return Attempt(made, lambda: _same_or_wrong(answers(path), expected(source)))


def _bytes(rng: random.Random, folder: Path) -> Attempt:
    """The archive's own bytes; unverified weights may change numbers."""
    source, path = rng.choice(samples().artifacts), folder / "model.mmfree"
    data = texts.mutated(rng, source.read_bytes())
    path.write_bytes(data)

    def use() -> str:
        found = answers(path)
        if equal(found, expected(source)):
            return "same"
        changed, weights = (read_archive(p).members["weights.bin"] for p in (path, source))
        return "wrong" if np.array_equal(changed, weights) else "changed"

    return Attempt(f"{source.name}: bytes", use)


def _state(rng: random.Random, folder: Path) -> Attempt:
    """A state file: its bytes, its header, its numbers."""
    source, path = samples().state, folder / "state"
    artifact = samples().artifacts[0]
    members, how = _members(source), rng.choice(("bytes", "header", "equally", "numbers"))
    header = json.loads(members["state.json"])
    if how == "bytes":
        path.write_bytes(texts.mutated(rng, source.read_bytes()))
        return Attempt("bytes", lambda: _same_or_wrong(continued(artifact, path), _after()))
    if how == "numbers":
        count = len(members["state.bin"]) // 4
        numbers = rng.choices((0.0, 1.0, -1e38, 1e-45, float("nan"), float("inf")), k=count)
        members["state.bin"] = np.array(numbers, "<f4").tobytes()
        _write(path, members)
        return Attempt("numbers", lambda: _changed(continued(artifact, path)))
    change = trees.mutated if how == "header" else trees.equally_mutated
    members["state.json"] = change(rng, header)
    _write(path, members)
    made = trees.difference(header, members["state.json"])
    # Other lengths and names are another state; its numbers are the same.
    return Attempt(made, lambda: _same_or_wrong(continued(artifact, path), _after()))


@cache
def _after() -> Answers:
    return continued(samples().artifacts[0], samples().state)


def _artifact_tokenizer(rng: random.Random, folder: Path) -> Attempt:
    """A tokenizer in an artifact, under a true hash."""
    source, path = samples().artifacts[0], folder / "model.mmfree"
    members = _members(source)
    tree = json.loads(members["tokenizer.json"])
    text = trees.mutated(rng, tree)
    manifest = json.loads(members["manifest.json"])
    digest = {"size": len(text), "sha256": hashlib.sha256(text).hexdigest()}
    manifest["members"]["tokenizer.json"] = digest
    members |= {"tokenizer.json": text, "manifest.json": json.dumps(manifest).encode()}
    _write(path, members)
    return Attempt(
        trees.difference(tree, text), lambda: _same_or_wrong(answers(path), expected(source))
    )


# Name -> how often it is chosen, and the attack.
ATTACKS: dict[str, tuple[float, Attack]] = {
    "manifest": (24, _manifest(trees.mutated)),
    "manifest, equal numbers": (8, _manifest(trees.equally_mutated)),
    "weights": (3, _numbers),
    "members": (3, _members_damaged),
    "exchanged members": (0.5, _exchanged),
    "archive": (12, _bytes),
    "state": (10, _state),
    "artifact's tokenizer": (3, _artifact_tokenizer),
}
