"""Attacks on what is compiled and trained from: checkpoints, tokenizers, interrupted runs."""

from __future__ import annotations

import json
import random
import shutil
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fuzz import texts, trees
from fuzz.attempt import Attack, Attempt
from fuzz.samples import PROMPT, TRAINING, corpus, samples
from mmfree_compiler.models import load_checkpoint
from mmfree_compiler.models.training import RESUME_FILE, train
from mmfree_compiler.runtime.text_stream import TextStream
from mmfree_compiler.runtime.tokenizer import Tokenizer

INDEX = "model.safetensors.index.json"
HARMLESS = {INDEX, "generation_config.json"}  # files that do not say what the model computes


def _checkpoint(file: str, sharded: bool = False) -> Attack:
    """A file of a checkpoint: as JSON if it is, else its bytes."""

    def attack(rng: random.Random, folder: Path) -> Attempt:
        source = samples().sharded if sharded else samples().checkpoint
        path = folder / "checkpoint"
        shutil.copytree(source, path)
        data = (path / file).read_bytes()
        if file.endswith(".json") and rng.random() < 0.9:
            text = trees.mutated(rng, json.loads(data))
            made = trees.difference(json.loads(data), text)
        else:
            text, made = texts.mutated(rng, data), "bytes"
        (path / file).write_bytes(text)
        return Attempt(f"{file}: {made}", lambda: _loaded(path, file not in HARMLESS))

    return attack


def _header(rng: random.Random, folder: Path) -> Attempt:
    """The header of a safetensors file, which is JSON after its length."""
    path = folder / "checkpoint"
    shutil.copytree(samples().checkpoint, path)
    file = path / "model.safetensors"
    header, numbers = _split(file.read_bytes())
    text = rng.choice((trees.mutated, trees.equally_mutated))(rng, header)
    file.write_bytes(_joined(text, numbers))
    return Attempt(trees.difference(header, text), lambda: _loaded(path))


def _split(data: bytes) -> tuple[Any, bytes]:
    """The header and the numbers of a safetensors file."""
    end = 8 + int.from_bytes(data[:8], "little")
    return json.loads(data[8:end]), data[end:]


def _joined(header: bytes, numbers: bytes) -> bytes:
    return len(header).to_bytes(8, "little") + header + numbers


def _loaded(path: Path, changes_model: bool = True) -> str:
    """Load and run a checkpoint."""
    logits = _logits(path)
    if not changes_model and not torch.equal(logits, _logits(samples().checkpoint)):
        return "wrong"
    return "runs" if logits.isfinite().all() else "runs, not finite"


@torch.no_grad()
def _logits(path: Path) -> Tensor:
    logits: Tensor = load_checkpoint(path)(torch.arange(4)[None])[0]
    return logits


def _tokenizer(rng: random.Random, _: Path) -> Attempt:
    """A tokenizer.json."""
    data = (samples().checkpoint / "tokenizer.json").read_bytes()
    tree = json.loads(data)
    tree["model"]["vocab"] = dict(list(tree["model"]["vocab"].items())[: rng.choice((9, 256))])
    text = trees.mutated(rng, tree) if rng.random() < 0.9 else texts.mutated(rng, data)
    made = trees.difference(tree, text)

    def use() -> str:
        tokenizer = Tokenizer(text)
        ids = tokenizer.encode(PROMPT)
        stream = TextStream(tokenizer, ids[:1].tolist())
        for token in (*ids.tolist(), 0, 255, 256):
            stream.push(token)
        tokenizer.decode([0, 1, 300])
        return "runs"

    return Attempt(made, use)


def _resumed(rng: random.Random, folder: Path) -> Attempt:
    """What a training run that was interrupted continues from."""
    path = folder / "trained"
    shutil.copytree(samples().trained, path)
    file = path / RESUME_FILE
    data = file.read_bytes()
    header, numbers = _split(data)
    if rng.random() < 0.4:
        progress = json.loads(header["__metadata__"]["progress"])
        text = trees.mutated(rng, progress)
        header["__metadata__"]["progress"] = text.decode("utf-8", "replace")
        made, changed = (
            trees.difference(progress, text),
            _joined(json.dumps(header).encode(), numbers),
        )
    elif rng.random() < 0.5:
        text = trees.mutated(rng, header)
        made, changed = trees.difference(header, text), _joined(text, numbers)
    else:
        made, changed = "bytes", texts.mutated(rng, data)
    file.write_bytes(changed)

    def use() -> str:
        train(TRAINING, corpus(), path)
        return "runs"

    return Attempt(made, use)


ATTACKS: dict[str, tuple[float, Attack]] = {
    "config.json": (8, _checkpoint("config.json")),
    "generation_config.json": (2, _checkpoint("generation_config.json")),
    "safetensors": (5, _checkpoint("model.safetensors")),
    "safetensors header": (5, _header),
    "index": (4, _checkpoint(INDEX, sharded=True)),
    "tokenizer": (6, _tokenizer),
    "resume file": (3, _resumed),
}
