"""Runs FPGA programs on a transport: the host's side of the machine."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.decoding import Choices
from mmfree_compiler.backends.fpga.facts import (
    ADVANCE,
    DECODE,
    FORWARD,
    IDS,
    LOGITS,
    Facts,
    read_facts,
)
from mmfree_compiler.backends.fpga.isa.machine import Bytes, Floats, Run, Sizes
from mmfree_compiler.backends.fpga.run.decoding import FpgaDecoding, Ids
from mmfree_compiler.backends.fpga.run.simulator import Simulator
from mmfree_compiler.backends.fpga.run.transport import Transport
from mmfree_compiler.backends.fpga.strides import FLOATS, LINE, packed_lines, row_lines
from mmfree_compiler.backends.interface import Batch
from mmfree_compiler.backends.numpy_states import NumpyStates
from mmfree_compiler.errors import ArtifactError, TargetError


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
        facts = read_facts(artifact.entry.builds[0])
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

    def decodes(self, choices: Choices) -> bool:
        """See decoding.Decoder: the likeliest tokens."""
        return bool((choices.divisors == 0).all() and (choices.penalties == 1).all())

    def decode(
        self, batch: Batch, choices: Choices, states: NumpyStates, steps: int
    ) -> FpgaDecoding:
        """See decoding.Decoder."""
        assert self.decodes(choices)
        self._artifact.check_unchanged()
        return FpgaDecoding(self._greedy, self._facts.steps, batch, states, steps)

    def _greedy(self, batch: Batch, states: NumpyStates, steps: int) -> tuple[Ids, Floats]:
        """See run.decoding.RunSteps."""
        count = len(batch.slots)
        with self._lock:
            self._call(DECODE, batch, states, steps)
            lines = self._transport.read(self._place(IDS), steps * packed_lines(count, 8))
            logits = [self._logits(sequence, steps) for sequence in range(count)]
        return lines.view(np.int64).reshape(steps, -1)[:, :count], np.stack(logits, 1)

    def _logits(self, sequence: int, steps: int) -> Floats:
        """Those of the steps of the last run, (steps, V)."""
        (port,) = self._manifest.outputs
        first = sequence * self._facts.steps * row_lines(port.width)
        return self._read(LOGITS, steps, port.width, first)

    def _run(self, batch: Batch, states: NumpyStates) -> list[Floats]:
        count = len(batch.wanted)
        with self._lock:
            self._call(FORWARD if count else ADVANCE, batch, states, 1)
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

    def _read(self, name: str, count: int, width: int, first: int = 0) -> Floats:
        """Rows of floats (count, width), from line `first` of a place on."""
        lines = self._transport.read(self._place(name) + first, count * row_lines(width))
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
