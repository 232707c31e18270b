"""Runs FPGA programs on a transport: the host's side of the machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.fpga.facts import DECODE, FORWARD, IDS, MOST_STEPS, Facts, facts_of
from mmfree_compiler.backends.fpga.isa.machine import Bytes, Floats, Run, Sizes
from mmfree_compiler.backends.fpga.run.simulator import Simulator
from mmfree_compiler.backends.fpga.run.transport import Transport
from mmfree_compiler.backends.fpga.strides import FLOATS, LINE, packed_lines, row_lines
from mmfree_compiler.backends.interface import Batch
from mmfree_compiler.backends.numpy_states import NumpyStates
from mmfree_compiler.errors import ArtifactError, InputError, TargetError


class FpgaLauncher:
    """See interface.Launcher. States are in the host's memory between runs."""

    def __init__(self, artifact: Artifact, facts: Facts, transport: Transport) -> None:
        self.build = f"simulated {facts.board.name}"
        self._artifact, self._facts, self._transport = artifact, facts, transport
        self._manifest = artifact.manifest
        packed = [t for t in artifact.entry.tensors.values() if t.role == "ternary"]
        self.weight_bytes = sum(tensor.nbytes for tensor in packed)
        self.most_sequences = facts.tokens
        self._lock = threading.Lock()

    @classmethod
    def open(cls, artifact: Artifact) -> FpgaLauncher:
        if not artifact.entry.builds:
            raise TargetError("target fpga", "has no builds", "Compile the model again")
        facts = facts_of(artifact.entry.builds[0])
        _check_layout(artifact, facts)
        weights = _lines(artifact.weights, facts)
        return cls(artifact, facts, Simulator.of(_sizes(facts), weights))

    def close(self) -> None:
        """Does nothing: memory is released with the object."""

    def states(self, count: int) -> NumpyStates:
        return NumpyStates.zero(self._manifest.states, count)

    def run(self, batch: Batch, states: NumpyStates) -> tuple[NDArray[np.float32], ...]:
        """See interface.Launcher. Long inputs are cut into runs."""
        self._artifact.check_unchanged()
        made = [self._run(part, states) for part in _parts(batch, self._facts.tokens)]
        ports = self._manifest.outputs
        empty = [np.zeros((0, port.width), np.float32) for port in ports]
        return tuple(np.concatenate(rows) for rows in zip(empty, *made, strict=True))

    def greedy(self, batch: Batch, states: NumpyStates, steps: int) -> NDArray[np.int64]:
        """Decode on the machine alone: (steps, N) ids of the likeliest tokens of N sequences.

        The first step reads `batch`, one token of each of N sequences, of which the machine takes
        `most_sequences` at most; each later step reads the tokens that the step before has chosen.
        Raises InputError on more, ArtifactError when the file of the weights was changed.
        """
        self._artifact.check_unchanged()
        count = len(batch.slots)
        if count > self.most_sequences:
            hint = f"Pass at most {self.most_sequences}"
            raise InputError(f"{count} sequences", "do not fit into the board's memories", hint)
        made = []
        for start in range(0, steps, MOST_STEPS):
            now = min(steps - start, MOST_STEPS)
            with self._lock:
                self._call(DECODE, batch, states, now)
                lines = self._transport.read(self._place(IDS), now * packed_lines(count, 8))
            made.append(lines.view(np.int64).reshape(now, -1)[:, :count])
            batch = replace(batch, inputs=(made[-1][-1],))
        return np.concatenate(made)

    def _run(self, batch: Batch, states: NumpyStates) -> list[Floats]:
        with self._lock:
            self._call(FORWARD, batch, states, 1)
            count = len(batch.wanted)
            return [self._output(number, count) for number in range(len(self._manifest.outputs))]

    def _call(self, role: str, batch: Batch, states: NumpyStates, steps: int) -> None:
        slots, sequence = np.unique(batch.slots, return_inverse=True)
        ids = np.zeros(len(batch.slots), np.int64)
        for port, rows in zip(self._manifest.inputs, batch.inputs, strict=True):
            if port.dtype == "int64":
                ids = rows.astype(np.int64)
            else:
                self._write(f"input {port.name}", rows)
        self._write_states(states, slots)
        order, wanted = sequence.astype(np.intp), np.asarray(batch.wanted)
        self._transport.run(self._program(role), Run(ids, order, wanted, len(slots), steps))
        self._read_states(states, slots)

    def _program(self, role: str) -> Bytes:
        member = self._artifact.entry.builds[0].members.get(role, "")
        if member not in self._artifact.members:
            thing = f"build {self._artifact.entry.builds[0].name}"
            raise ArtifactError(thing, f"has no program {role!r}", "Compile the model again")
        return self._artifact.members[member]

    def _output(self, number: int, count: int) -> Floats:
        width = self._manifest.outputs[number].width
        return self._read(f"output {number}", count, width)

    def _write(self, name: str, rows: NDArray[np.generic]) -> None:
        """Write rows of floats (n, width), each in whole lines."""
        self._transport.write(self._place(name), _in_lines(rows))

    def _read(self, name: str, count: int, width: int) -> Floats:
        """Rows of floats (count, width)."""
        lines = self._transport.read(self._place(name), count * row_lines(width))
        return lines.view(np.float32).reshape(count, row_lines(width) * FLOATS)[:, :width]

    def _write_states(self, states: NumpyStates, slots: NDArray[np.int32]) -> None:
        for state in self._manifest.states:
            rows = states.arrays[state.name][slots]
            self._write(f"state {state.name}", rows.reshape(-1, state.shape[-1]))

    def _read_states(self, states: NumpyStates, slots: NDArray[np.int32]) -> None:
        for state in self._manifest.states:
            array = states.arrays[state.name]
            shape, width = (len(slots), *array.shape[1:]), state.shape[-1]
            rows = self._read(f"state {state.name}", int(np.prod(shape[:-1])), width)
            array[slots] = rows.reshape(shape)

    def _place(self, name: str) -> int:
        if name not in self._facts.places:
            thing = f"build {self._artifact.entry.builds[0].name}"
            raise ArtifactError(thing, f"has no place for {name}", "Compile the model again")
        return self._facts.places[name]


def _sizes(facts: Facts) -> Sizes:
    board = facts.board
    return Sizes(board.scratch_lines, board.code_lines, facts.memory, facts.tokens, facts.layout)


def _check_layout(artifact: Artifact, facts: Facts) -> None:
    """Raise ArtifactError if weights are laid out for other engines than the board's."""
    for name, tensor in artifact.entry.tensors.items():
        if tensor.role == "ternary" and tensor.layout != facts.layout.name:
            cause = f"is laid out as {tensor.layout}, not as {facts.layout.name}"
            raise ArtifactError(f"tensor {name}", cause, "Compile the model again")


def _lines(weights: Bytes, facts: Facts) -> Bytes:
    if weights.size != facts.weights * LINE:
        padded = np.zeros(facts.weights * LINE, np.uint8)
        if not 0 <= padded.size - weights.size < LINE:
            raise ArtifactError("weights", "have another size", "Compile the model again")
        padded[: weights.size] = weights
        weights = padded
    return weights.reshape(-1, LINE)


def _in_lines(rows: NDArray[np.generic]) -> Bytes:
    padded = np.zeros((len(rows), row_lines(rows.shape[1]) * FLOATS), np.float32)
    padded[:, : rows.shape[1]] = rows
    return padded.view(np.uint8).reshape(-1, LINE)


def _parts(batch: Batch, tokens: int) -> Iterator[Batch]:
    """Batches of at most `tokens` tokens."""
    for start in range(0, len(batch.slots), tokens):
        here = slice(start, start + tokens)
        wanted = batch.wanted[(batch.wanted >= start) & (batch.wanted < start + tokens)] - start
        inputs = tuple(rows[here] for rows in batch.inputs)
        yield Batch(inputs, batch.slots[here], batch.positions[here], wanted)
