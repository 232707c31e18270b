"""What is mutated: a checkpoint, two artifacts and a state, and what they answer."""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import mmfree_compiler as mmf
from mmfree_compiler.models import BitLinear, ModelConfig, random_checkpoint
from mmfree_compiler.models.corpus import Corpus
from mmfree_compiler.models.tokenizer import VOCAB_SIZE, save_byte_tokenizer
from mmfree_compiler.models.train_config import TrainConfig
from mmfree_compiler.models.training import train
from mmfree_compiler.runtime import Session, State

TARGET = "cpu:x86-64-v3,portable"
WIDTH = 32
PROMPT = "ab\N{GREEK SMALL LETTER PI}c"
TRAINING = TrainConfig(hidden_size=16, layers=1, steps=2, batch=1, length=8)
Answers = list[Any]


@dataclass(frozen=True)
class Samples:
    """Sound files, in a folder that goes when the process ends."""

    folder: Path

    @property
    def checkpoint(self) -> Path:
        return self.folder / "checkpoint"

    @property
    def sharded(self) -> Path:
        return self.folder / "sharded"

    @property
    def artifacts(self) -> tuple[Path, Path]:
        return self.folder / "lm.mmfree", self.folder / "rows.mmfree"

    @property
    def onnx(self) -> Path:
        return self.folder / "lm.onnx"

    @property
    def trained(self) -> Path:
        return self.folder / "trained"

    @property
    def state(self) -> Path:
        return self.folder / "state"


class Rows(nn.Module):
    """A module with two inputs, two outputs and two kinds of state."""

    def __init__(self) -> None:
        super().__init__()
        self.taps = nn.Parameter(torch.randn(WIDTH, 4))
        self.up, self.down = BitLinear(WIDTH, 48), BitLinear(48, WIDTH)

    def forward(self, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        x = torch.ops.mmfree.short_conv(x, self.taps, None, None) + y
        x = torch.sigmoid(self.up(x))
        h = torch.ops.mmfree.mlgru_scan(x, 1 - x, None)
        return self.down(h), x


@cache
def samples() -> Samples:
    """Made once, by a child: the threads of the compiler's libraries would not survive forks."""
    folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
    owner = os.getpid()
    atexit.register(lambda: shutil.rmtree(folder) if os.getpid() == owner else None)
    made = Samples(folder)
    child = get_context("fork").Process(target=_make, args=(made,))
    child.start()
    child.join()
    assert child.exitcode == 0
    return made


def _make(made: Samples) -> None:
    torch.manual_seed(0)
    config = ModelConfig.of(WIDTH, 2, VOCAB_SIZE, intermediate_size=48, use_short_conv=True)
    random_checkpoint(made.checkpoint, config)
    save_byte_tokenizer(made.checkpoint / "tokenizer.json")
    (made.checkpoint / "generation_config.json").write_text('{"eos_token_id": [256], "top_k": 5}')
    _shard(made)
    lm, rows = made.artifacts
    mmf.compile(made.checkpoint, TARGET, check=False).save(lm)
    mmf.compile(made.checkpoint, "onnx", check=False).save(made.onnx)
    x = torch.randn(2, 3, WIDTH)
    mmf.compile(Rows().eval(), TARGET, example_inputs=(x, x), check=False).save(rows)
    mmf.load(lm, threads=1).prefill(PROMPT).save(made.state)
    with suppress(KeyboardInterrupt):
        train(TRAINING, corpus(), made.trained, _interrupt)


def corpus() -> Corpus:
    """A text that is long enough to train on."""
    return Corpus.of([b"A text to train on. " * 200])


def _interrupt(_: object) -> None:
    raise KeyboardInterrupt


def _shard(made: Samples) -> None:
    """The same checkpoint in two weight files and an index."""
    shutil.copytree(made.checkpoint, made.sharded)
    (made.sharded / "model.safetensors").unlink()
    tensors = load_file(made.checkpoint / "model.safetensors")
    files = ("model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors")
    places = {name: files[n % 2] for n, name in enumerate(tensors)}
    for file in files:
        save_file({n: t for n, t in tensors.items() if places[n] == file}, made.sharded / file)
    index = json.dumps({"metadata": {}, "weight_map": places})
    (made.sharded / "model.safetensors.index.json").write_text(index)


def answers(path: Path) -> Answers:
    """What the artifact at `path` says to fixed questions. Raises what loading and running do."""
    session = mmf.load(path, threads=1)
    if session.artifact.manifest.kind == "lm":
        return _texts(session)
    random = np.random.default_rng(0)
    x, y = (random.standard_normal((2, 3, WIDTH)).astype(np.float32) for _ in range(2))
    return [*session(x, y), *session(y[:1, :1], x[:1, :1])]


def _texts(session: Session) -> Answers:
    tokens = np.arange(8).reshape(2, 4)
    logits, state = session(tokens)
    one, after = session(tokens[:, :1], state)
    generation = session.generate(PROMPT, seed=0, max_new_tokens=3, stop_tokens=())
    list(generation)
    return [logits, one, *state.export().values(), *after.export().values()]


def continued(artifact: Path, state: Path) -> Answers:
    """What the artifact says after a state that was saved."""
    session = mmf.load(artifact, threads=1)
    logits, after = session(np.array([[5]]), State.load(state))
    return [logits, *after.export().values()]


def equal(one: Answers, other: Answers) -> bool:
    """Whether they are the same bits, as on every instruction set."""
    return len(one) == len(other) and all(map(np.array_equal, one, other))
