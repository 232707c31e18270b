"""A tiny recurrent model in NumPy that keeps the launcher's promises, and artifacts for it.

A token is computed on its own, so that its result does not depend on what it is run with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from mmfree_compiler.artifact import Artifact, Port, StatePart, pack_constants
from mmfree_compiler.program import Constant
from mmfree_compiler.runtime import Session

VOCAB, WIDTH, STRIDE = 257, 10, 16  # bytes and an end of text; recurrent floats and their padding
END = 256


class FakeLauncher:
    """lm: two layers of h = a h + E[id], logits = (h0 + h1) W. module: y = x + h, h = h/2 + x."""

    def __init__(self, artifact: Artifact, threads: int) -> None:
        self.artifact, self.threads = artifact, threads
        self.calls: list[tuple[int, int]] = []  # (tokens, first) of each

    def run(
        self,
        inputs: tuple[Any, ...],
        slots: Any,
        state: Any,
        first: int,
        outputs: tuple[Any, ...],
    ) -> None:
        self.check(inputs, slots, state, first, outputs)
        self.calls.append((len(slots), first))
        step = self.lm_row if self.artifact.manifest.kind == "lm" else self.module_row
        for token, slot in enumerate(slots):
            row = step([x[token] for x in inputs], state[slot])
            if token >= first:
                for port, out in zip(self.artifact.manifest.outputs, outputs, strict=True):
                    out[token - first] = np.nan  # padding must not be read
                    width = min(port.width, row.size)
                    out[token - first, :width] = row[:width]

    def lm_row(self, inputs: list[Any], state: Any) -> Any:
        table, head = self.artifact.tensor("embedding")[0], self.artifact.tensor("head")[0]
        for layer in range(2):
            h = state[layer * STRIDE : layer * STRIDE + WIDTH]
            h *= np.float32(0.9 - layer / 2)
            h += table[inputs[0]]
        return (state[:WIDTH] + state[STRIDE : STRIDE + WIDTH]) @ head

    def module_row(self, inputs: list[Any], state: Any) -> Any:
        x = inputs[0][:WIDTH]
        out = sum(row[:WIDTH] for row in inputs) + state[:WIDTH]
        state[:WIDTH] = state[:WIDTH] / 2 + x
        return out

    def check(self, inputs: Any, slots: Any, state: Any, first: int, outputs: Any) -> None:
        """What the protocol promises a launcher."""
        manifest, tokens = self.artifact.manifest, len(slots)
        assert 0 <= first <= tokens
        assert slots.dtype == np.int32
        assert state.shape[1] == manifest.state_width
        for port, x in zip(manifest.inputs, inputs, strict=True):
            shape = (tokens,) if port.dtype == "int64" else (tokens, port.stride)
            assert (x.shape, x.dtype) == (shape, np.dtype(port.dtype))
            assert x.flags.c_contiguous
            assert x.flags.writeable
            assert x.flags.aligned
        for port, out in zip(manifest.outputs, outputs, strict=True):
            assert (out.shape, out.dtype) == ((tokens - first, port.stride), np.float32)
        rows = [x for x in inputs if x.dtype == np.float32]
        for array in (state, *rows, *outputs):
            assert array.flags.c_contiguous
            assert array.flags.writeable
            assert array.size == 0 or array.ctypes.data % 64 == 0


def byte_tokenizer() -> bytes:
    """tokenizer.json of a byte-level tokenizer without merges: id b is byte b, 256 ends a text."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable}
    letters |= {byte: chr(256 + index) for index, byte in enumerate(others)}
    tokenizer = Tokenizer(models.BPE({letters[byte]: byte for byte in range(256)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return str(tokenizer.to_str()).encode()


def lm_artifact(seed: int = 0, tokenizer: bool = True, **changes: Any) -> Artifact:
    random = np.random.default_rng(seed)
    table = random.standard_normal((VOCAB, WIDTH)).astype(np.float32)
    head = random.standard_normal((WIDTH, VOCAB)).astype(np.float32)
    constants = (
        Constant("embedding", "float32", table.shape, (table,)),
        Constant("head", "float32", head.shape, (head,)),
    )
    weights, tensors = pack_constants(constants)
    members: dict[str, Any] = {"weights.bin": weights}
    if tokenizer:
        members["tokenizer.json"] = byte_tokenizer()
    fields = {
        "target": "cpu",
        "kind": "lm",
        "tensors": tensors,
        "model": {"eos_token_id": END},
        "inputs": (Port(name="tokens", dtype="int64", width=1, stride=1, limit=VOCAB),),
        "outputs": (Port(name="logits", dtype="float32", width=VOCAB, stride=272),),
        "states": (StatePart(name="h", offset=0, width=STRIDE, count=2, shape=(WIDTH,)),),
        "state_width": 2 * STRIDE,
    }
    return Artifact.build(members, **(fields | changes))


def module_artifact(
    width: int = WIDTH, inputs: tuple[str, ...] = ("x",), outputs: tuple[str, ...] = ("y",)
) -> Artifact:
    def ports(names: tuple[str, ...]) -> tuple[Port, ...]:
        return tuple(Port(name=n, dtype="float32", width=width, stride=STRIDE) for n in names)

    return Artifact.build(
        {"weights.bin": b""},
        target="cpu",
        kind="module",
        inputs=ports(inputs),
        outputs=ports(outputs),
        states=(StatePart(name="h", offset=0, width=STRIDE, shape=(WIDTH,)),),
        state_width=STRIDE,
    )


def session_of(artifact: Artifact) -> Session:
    return Session(artifact, threads=1, launcher=FakeLauncher(artifact, 1))


def lm_session(seed: int = 0, tokenizer: bool = True, **changes: Any) -> Session:
    return session_of(lm_artifact(seed, tokenizer, **changes))


def module_session(**options: Any) -> Any:
    return session_of(module_artifact(**options))


def calls_of(session: Session) -> list[tuple[int, int]]:
    """(tokens, first) of each launcher call so far."""
    launcher = session.language_model._runner.launcher
    assert isinstance(launcher, FakeLauncher)
    return launcher.calls
