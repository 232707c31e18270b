"""llama.cpp through llama-cpp-python: a random GGUF of the same shape, architecture `bitnet`."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import Any

import llama_cpp

from benchmarks.peers import Step
from benchmarks.peers.gguf_file import write_random
from benchmarks.shapes import Shape

SEQUENCES = 8
CONTEXT = 1024  # tokens of all sequences together
LONGEST = 512  # tokens of a prompt, run as one batch
SMALLEST_VOCABULARY = 256

_silent = llama_cpp.llama_log_callback(lambda *_: None)


def prepare(shape: Shape, folder: Path, option: str) -> dict[str, Any]:
    """Write the GGUF, kept for the next time; `option` is the type of its ternary weights."""
    path = _path(shape, folder, option)
    if not path.exists():
        write_random(path, shape, option)
    return {"file_bytes": path.stat().st_size}


def _path(shape: Shape, folder: Path, option: str) -> Path:
    return folder / f"{shape.name}-{option.lower()}.gguf"


def open_model(shape: Shape, folder: Path, option: str, threads: int) -> Llama:
    """Open the GGUF that `prepare` wrote."""
    return Llama(_path(shape, folder, option), threads)


class Llama:
    """A model and a context of SEQUENCES sequences; a step computes the logits of last tokens."""

    def __init__(self, path: Path, threads: int) -> None:
        llama_cpp.llama_log_set(_silent, ctypes.c_void_p(0))
        llama_cpp.llama_backend_init()
        self.path = path
        self.model = llama_cpp.llama_model_load_from_file(
            str(path).encode(), llama_cpp.llama_model_default_params()
        )
        options = llama_cpp.llama_context_default_params()
        options.n_ctx, options.n_seq_max, options.kv_unified = CONTEXT, SEQUENCES, True
        options.n_batch = options.n_ubatch = LONGEST
        options.n_threads = options.n_threads_batch = threads
        self.context = self.model and llama_cpp.llama_init_from_model(self.model, options)
        if not self.context:
            raise RuntimeError(f"llama.cpp cannot open {path}")

    @cached_property
    def weight_bytes(self) -> int:
        """The file's size: a step reads all of it, since the head is the embedding."""
        return self.path.stat().st_size

    @property
    def steps(self) -> dict[str, Callable[[int], Step]]:
        return {"decode": self._decode, "prefill": self._prefill}

    def _decode(self, batch: int) -> Step:
        tokens = _Batch(batch)
        for sequence in range(batch):
            tokens.add(sequence, 0, logits=True)
        self._clear()

        def step() -> None:
            self._run(tokens)
            tokens.advance()

        return step

    def _prefill(self, length: int) -> Step:
        tokens = _Batch(length)
        for position in range(length):
            tokens.add(0, position, logits=position == length - 1)

        def step() -> None:
            self._clear()
            self._run(tokens)

        return step

    def _clear(self) -> None:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self.context), False)

    def _run(self, tokens: _Batch) -> None:
        if llama_cpp.llama_decode(self.context, tokens.batch):
            raise RuntimeError("llama_decode failed")
        llama_cpp.llama_get_logits(self.context)  # waits for them


class _Batch:
    """Tokens for one call of llama_decode."""

    def __init__(self, capacity: int) -> None:
        self.batch = llama_cpp.llama_batch_init(capacity, 0, 1)
        self.batch.n_tokens = 0

    def add(self, sequence: int, position: int, *, logits: bool) -> None:
        at = self.batch.n_tokens
        self.batch.token[at] = at % SMALLEST_VOCABULARY
        self.batch.pos[at] = position
        self.batch.n_seq_id[at] = 1
        self.batch.seq_id[at][0] = sequence
        self.batch.logits[at] = logits
        self.batch.n_tokens += 1

    def advance(self) -> None:
        """Move every token to the next position."""
        for at in range(self.batch.n_tokens):
            self.batch.pos[at] += 1
