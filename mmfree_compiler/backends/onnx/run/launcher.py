"""Runs ONNX models: the names of ../names.py, from the caller's side."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.interface import Batch
from mmfree_compiler.backends.numpy_states import NumpyStates
from mmfree_compiler.backends.onnx.facts import MODEL, read_facts
from mmfree_compiler.backends.onnx.names import INPUTS, OUTPUTS, port_names, state_names
from mmfree_compiler.backends.onnx.run.engine import TESTED, Engine, open_engine
from mmfree_compiler.threads import resolve_threads

Indices = NDArray[np.intp]

CHUNK = 256  # tokens of a sequence in one run: bounds the memory of rows


@dataclass(frozen=True)
class Piece:
    """Tokens (B, T), as indices into a batch, of sequences `slots` (B,)."""

    slots: NDArray[np.int32]
    tokens: Indices


@dataclass(frozen=True)
class OnnxLauncher:
    """See interface.Launcher.

    A model takes a rectangle of tokens, so sequences of one length run together, others after them.
    """

    artifact: Artifact  # which the engine's constants may be views of
    engine: Engine = field(repr=False)
    build: str
    weight_bytes: int

    @classmethod
    def open(
        cls,
        artifact: Artifact,
        threads: int | None = None,
        providers: Sequence[str] = (TESTED,),
        optimizations: str = "all",
    ) -> OnnxLauncher:
        """`providers` are ONNX Runtime's execution providers; the first that can runs a node.

        `optimizations` of the graph are "off", "basic", "extended" or "all".
        """
        (build,) = artifact.entry.builds
        facts = read_facts(build)
        model = artifact.members[build.members[MODEL]]
        engine = engine_of(artifact, model, threads, providers, optimizations)
        untested = [name for name in engine.providers if name != TESTED]
        note = f" on {', '.join(untested)}, not tested: other bits are possible"
        name = build.name + (note if untested else "")
        return cls(artifact, engine, name, facts.ternary_bytes)

    def states(self, count: int) -> NumpyStates:
        return NumpyStates.zero(self.artifact.manifest.states, count)

    def run(self, batch: Batch, states: NumpyStates) -> tuple[NDArray[np.float32], ...]:
        self.artifact.check_unchanged()
        is_wanted = np.zeros(batch.positions.size, np.bool_)
        is_wanted[batch.wanted] = True
        outputs = tuple(
            np.empty((is_wanted.size, port.width), np.float32)
            for port in self.artifact.manifest.outputs
        )
        for piece in _pieces(batch.slots, is_wanted):
            made = self._run(batch, states, piece, bool(is_wanted[piece.tokens].any()))
            for rows, whole in zip(made, outputs, strict=False):
                whole[piece.tokens] = rows
        return tuple(rows[batch.wanted] for rows in outputs)

    def _run(
        self, batch: Batch, states: NumpyStates, piece: Piece, wanted: bool
    ) -> list[NDArray[np.float32]]:
        """Advance the states; the rows of each output (B, T, width), if any are wanted."""
        manifest = self.artifact.manifest
        slots = tuple(state.name for state in manifest.states)
        _, after = state_names(slots)
        outputs = port_names(manifest.kind, tuple(p.name for p in manifest.outputs), OUTPUTS)
        inputs = self.inputs(batch, states, piece)
        made = self.engine.run(inputs, (*after, *(outputs if wanted else ())))
        for slot, state in zip(slots, made, strict=False):
            states.arrays[slot][piece.slots] = state
        return made[len(slots) :]

    def inputs(self, batch: Batch, states: NumpyStates, piece: Piece) -> dict[str, NDArray[Any]]:
        """The model's inputs by name, for the tokens of a piece."""
        manifest = self.artifact.manifest
        slots = tuple(state.name for state in manifest.states)
        before, _ = state_names(slots)
        ports = port_names(manifest.kind, tuple(p.name for p in manifest.inputs), INPUTS)
        rows = {n: rows[piece.tokens] for n, rows in zip(ports, batch.inputs, strict=True)}
        return rows | {
            name: states.arrays[slot][piece.slots] for slot, name in zip(slots, before, strict=True)
        }

    def close(self) -> None:
        """ONNX Runtime releases what it holds with the launcher."""


def engine_of(
    artifact: Artifact,
    model: NDArray[np.uint8],
    threads: int | None = None,
    providers: Sequence[str] = (TESTED,),
    optimizations: str = "all",
    waiting: bool = True,
) -> Engine:
    """An engine for a model whose external data are those of `artifact`: see `open_engine`."""
    (build,) = artifact.entry.builds
    constants = read_facts(build).location, artifact.weights
    count = resolve_threads(threads)
    return open_engine(model, constants, count, providers, optimizations, waiting)


def _pieces(slots: NDArray[np.int32], is_wanted: NDArray[np.bool_]) -> Iterator[Piece]:
    """Rectangles of a batch's tokens, those of a sequence in order.

    A prompt is cut in front of its first wanted token, since no output is made before it.
    """
    order = np.argsort(slots, kind="stable")
    found, starts, counts = np.unique(slots[order], return_index=True, return_counts=True)
    rows = [order[start : start + count] for start, count in zip(starts, counts, strict=True)]
    first = [int(np.argmax(np.append(is_wanted[row], True))) for row in rows]
    for length, cut in sorted(set(zip(counts.tolist(), first, strict=True))):
        alike = [k for k, row in enumerate(rows) if (len(row), first[k]) == (length, cut)]
        tokens = np.stack([rows[k] for k in alike])
        ends = sorted({*range(CHUNK, cut, CHUNK), cut, *range(cut + CHUNK, length, CHUNK), length})
        begins = [0, *ends[:-1]]
        for begin, end in zip(begins, ends, strict=True):
            if begin < end:
                yield Piece(found[alike], tokens[:, begin:end])
