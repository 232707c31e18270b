"""This project: a random checkpoint, compiled by `mmfree compile`, run by `Session`.

A peer's option is the target, the default one if it is empty.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.peers import Step
from benchmarks.shapes import Shape
from mmfree_compiler.runtime import load
from mmfree_compiler.target import DEFAULT_TARGET


def prepare(shape: Shape, folder: Path, option: str) -> dict[str, Any]:
    """Write the checkpoint, kept for the next time, and compile it; returns the JSON it printed."""
    checkpoint = folder / shape.name
    if not checkpoint.exists():
        from mmfree_compiler.models import random_checkpoint

        random_checkpoint(checkpoint, shape.name)
    command = ["mmfree_compiler", "compile", checkpoint, "-o", _artifact(shape, folder, option)]
    command += ["--target", option or DEFAULT_TARGET]
    # In a separate process, so that the peak memory is the compiler's alone. A separate cache keeps
    # the linker's stubs; the kernels in it are removed, so that all of them are compiled.
    cache = folder.resolve() / "cache"
    shutil.rmtree(cache / "mmfree-compiler" / "objects", ignore_errors=True)
    done = subprocess.run(
        [sys.executable, "-m", *map(str, command), "--json"],
        env=os.environ | {"XDG_CACHE_HOME": str(cache)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(done.returncode)  # its last line on stderr says why
    facts: dict[str, Any] = json.loads(done.stdout)
    return facts


def _artifact(shape: Shape, folder: Path, option: str) -> Path:
    parts = (shape.name, *filter(None, option.split(":")))
    return folder / f"{'-'.join(parts)}.mmfree"


def open_model(shape: Shape, folder: Path, option: str, threads: int) -> Mmfree:
    """Load the artifact that `prepare` compiled."""
    return Mmfree(_artifact(shape, folder, option), threads)


class Mmfree:
    """A session, called as users call it: token ids and a state in, logits and a state out."""

    def __init__(self, path: Path, threads: int) -> None:
        self.path, self.threads = path, threads
        self.session = load(path, threads)

    @property
    def weight_bytes(self) -> int:
        return self.session.launcher.weight_bytes

    @property
    def steps(self) -> dict[str, Callable[[int], Step]]:
        return {"decode": self._decode, "prefill": self._prefill, "load": self._load}

    def _decode(self, batch: int) -> Step:
        tokens = np.arange(1, 1 + batch)[:, None]
        state = self.session(tokens)[1]

        def step() -> None:
            nonlocal state
            _, state = self.session(tokens, state)

        return step

    def _prefill(self, length: int) -> Step:
        ids = np.random.default_rng(0).integers(self.session.language_model.vocab_size, size=length)
        return lambda: next(self.session.generate(ids, max_new_tokens=1, temperature=0))

    def _load(self, size: int) -> Step:
        return lambda: load(self.path, self.threads)
