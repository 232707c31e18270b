"""A tiny recurrent model in NumPy that keeps the launcher's promises, and artifacts for it.

A token is computed on its own, so that its result does not depend on what it is run with.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from mmfree_compiler.artifact import Artifact, Port, StateEntry, TargetEntry, pack_constants
from mmfree_compiler.backends.interface import Batch
from mmfree_compiler.backends.numpy_states import NumpyStates
from mmfree_compiler.program import Constant
from mmfree_compiler.runtime import Session, State

VOCAB, WIDTH = 257, 10  # bytes and an end of text; recurrent floats
END = 256


class FakeLauncher:
    """lm: two layers of h = a h + E[id], logits = (h0 + h1) W. module: y = x + h, h = h/2 + x."""

    build = "fake"
    weight_bytes = 0

    def __init__(self, artifact: Artifact, threads: int | None = None) -> None:
        self.artifact, self.threads = artifact, threads
        self.calls: list[tuple[int, int]] = []  # (tokens, tokens wanted) of each

    @classmethod
    def open(cls, artifact: Artifact, threads: int | None = None) -> FakeLauncher:
        return cls(artifact, threads)

    def close(self) -> None:
        pass

    def states(self, count: int) -> NumpyStates:
        return NumpyStates.zero(self.artifact.manifest.states, count)

    def run(self, batch: Batch, states: NumpyStates) -> tuple[Any, ...]:
        self.check(batch, states)
        self.calls.append((len(batch.slots), len(batch.wanted)))
        step = self.lm_row if self.artifact.manifest.kind == "lm" else self.module_row
        rows = [
            step([x[token] for x in batch.inputs], states.arrays["h"][slot])
            for token, slot in enumerate(batch.slots)
        ]
        return tuple(
            np.array([rows[token][: port.width] for token in batch.wanted], np.float32).reshape(
                len(batch.wanted), port.width
            )
            for port in self.artifact.manifest.outputs
        )

    def lm_row(self, inputs: list[Any], state: Any) -> Any:
        table, head = self.artifact.tensor("embedding")[0], self.artifact.tensor("head")[0]
        for layer in range(2):
            state[layer] *= np.float32(0.9 - layer / 2)
            state[layer] += table[inputs[0]]
        return (state[0] + state[1]) @ head

    def module_row(self, inputs: list[Any], state: Any) -> Any:
        x, h = inputs[0][:WIDTH], state[0]
        out = np.array(inputs[0])
        out[:WIDTH] = sum(row[:WIDTH] for row in inputs) + h
        h[:] = h / 2 + x
        return out

    def check(self, batch: Batch, states: Any) -> None:
        """What the interface promises a launcher."""
        manifest, tokens = self.artifact.manifest, len(batch.slots)
        assert isinstance(states, NumpyStates)
        assert batch.slots.dtype == np.int32
        assert batch.positions.shape == (tokens,)
        assert (np.diff(batch.wanted) > 0).all()
        assert batch.wanted.size == 0 or 0 <= batch.wanted[0] <= batch.wanted[-1] < tokens
        assert 0 <= batch.slots.min() <= batch.slots.max() < len(states)
        for slot in np.unique(batch.slots):
            assert (np.diff(batch.positions[batch.slots == slot]) == 1).all()
        for port, x in zip(manifest.inputs, batch.inputs, strict=True):
            shape = (tokens,) if port.dtype == "int64" else (tokens, port.width)
            assert (x.shape, x.dtype) == (shape, np.dtype(port.dtype))


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


def lm_artifact(
    seed: int = 0, tokenizer: bool = True, targets: tuple[str, ...] = ("cpu",), **changes: Any
) -> Artifact:
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
        "kind": "lm",
        "targets": tuple(
            TargetEntry(target=target, nbytes=weights.size, tensors=tensors) for target in targets
        ),
        "model": {"eos_token_id": END},
        "inputs": (Port(name="tokens", dtype="int64", width=1, limit=VOCAB),),
        "outputs": (Port(name="logits", dtype="float32", width=VOCAB),),
        "states": (StateEntry(name="h", count=2, shape=(WIDTH,)),),
        "fingerprint": f"{seed:064x}",
    }
    return Artifact.build(members, **(fields | changes))


def module_artifact(
    width: int = WIDTH, inputs: tuple[str, ...] = ("x",), outputs: tuple[str, ...] = ("y",)
) -> Artifact:
    def ports(names: tuple[str, ...]) -> tuple[Port, ...]:
        return tuple(Port(name=n, dtype="float32", width=width) for n in names)

    return Artifact.build(
        {"weights.bin": b""},
        targets=(TargetEntry(target="cpu", nbytes=0),),
        kind="module",
        inputs=ports(inputs),
        outputs=ports(outputs),
        states=(StateEntry(name="h", shape=(WIDTH,)),),
        fingerprint="0" * 64,
    )


def session_of(artifact: Artifact) -> Session:
    return Session(artifact, launcher=FakeLauncher(artifact))


def lm_session(seed: int = 0, tokenizer: bool = True, **changes: Any) -> Session:
    return session_of(lm_artifact(seed, tokenizer, **changes))


def module_session(**options: Any) -> Any:
    return session_of(module_artifact(**options))


def calls_of(session: Session) -> list[tuple[int, int]]:
    """(tokens, tokens wanted) of each launcher call so far."""
    assert isinstance(session.launcher, FakeLauncher)
    return session.launcher.calls


def same_states(a: State, b: State) -> bool:
    """Whether two states hold the same numbers."""
    found, expected = a.export(), b.export()
    return found.keys() == expected.keys() and all(
        np.array_equal(found[name], expected[name]) for name in found
    )
