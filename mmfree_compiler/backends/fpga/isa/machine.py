"""What programs see of the machine: memories, registers and the stream of weights."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.backends.fpga.isa.opcode import Counts
from mmfree_compiler.backends.fpga.layouts import Trits
from mmfree_compiler.backends.fpga.strides import FLOATS, LINE, code_lines, row_lines
from mmfree_compiler.errors import ArtifactError

Floats = NDArray[np.float32]
Bytes = NDArray[np.uint8]
Codes = NDArray[np.int8]


class MachineError(ArtifactError):
    """A program asks for what the machine cannot do."""

    always = "Compile the model again"


@dataclass(frozen=True)
class Sizes:
    """The sizes of a machine's memories in lines, and the most rows of a run, `tokens`.

    `memory` is what the device's memory has behind the weights, which are read-only. `layout` is
    that of the stream of weights.
    """

    scratch: int
    codes: int
    memory: int
    tokens: int
    layout: Trits


@dataclass(frozen=True)
class Run:
    """What the host writes into the registers before it starts a program.

    `ids` (T,) are token ids, or zeros; `sequence` (T,) says to which of `sequences` each token
    belongs; `wanted` (W,) are the tokens whose outputs are needed. `steps` is the number of tokens
    to decode.
    """

    ids: NDArray[np.int64]
    sequence: NDArray[np.intp]
    wanted: NDArray[np.intp]
    sequences: int
    steps: int = 1

    @cached_property
    def counts(self) -> Counts:
        return 1, len(self.ids), self.sequences, len(self.wanted)


@dataclass
class Memory:
    """The device's memory: lines of 64 bytes, of which the first hold the weights."""

    weights: Bytes  # (lines, 64), not written
    rest: Bytes  # (lines, 64)

    def lines(self, first: int, count: int, write: bool = False) -> Bytes:
        """A view of lines. Raises MachineError beyond the end, and on writes to the weights."""
        end, base = first + count, len(self.weights)
        if first >= 0 and end <= base and not write:
            return self.weights[first:end]
        if first < base or end > base + len(self.rest):
            kind = "writes" if write else "reads"
            cause = f"{kind} lines {first} to {end} of the device's memory"
            raise MachineError("program", f"{cause}, which has {base + len(self.rest)}")
        return self.rest[first - base : end - base]


@dataclass
class Machine:
    """The state that instructions read and change.

    `ids` are the tokens' ids, `peaks` the largest logits so far of each wanted token, `read` how
    many of them argmax has seen. `streams` are [first, end) of what is still to be taken. `weights`
    are those that were unpacked: (line, n, k) -> (scale, codes).
    """

    sizes: Sizes
    memory: Memory
    scratch: Floats = field(init=False)
    codes: Codes = field(init=False)
    run: Run = field(init=False)
    counts: Counts = field(init=False)
    ids: NDArray[np.int64] = field(init=False)
    peaks: Floats = field(init=False)
    read: int = 0
    streams: deque[tuple[int, int]] = field(default_factory=deque)
    weights: dict[tuple[int, int, int], tuple[np.float32, Floats]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.scratch = np.zeros(self.sizes.scratch * FLOATS, np.float32)
        self.codes = np.zeros(self.sizes.codes * LINE, np.int8)

    def start(self, run: Run) -> None:
        """Write the registers."""
        self.run, self.counts, self.ids = run, run.counts, run.ids.copy()
        self.peaks, self.read = np.zeros(len(run.wanted), np.float32), 0
        self.streams.clear()

    def rows(self, line: int, count: int, width: int) -> Floats:
        """A view of rows in the scratch memory, (count, width)."""
        stride, first = row_lines(width) * FLOATS, line * FLOATS
        block = self.scratch[first : first + count * stride]
        return block.reshape(count, stride)[:, :width]

    def number(self, line: int, index: int = 0) -> np.float32:
        """One of the 16 numbers of a line."""
        value: np.float32 = self.scratch[line * FLOATS + index]
        return value

    def code_rows(self, line: int, count: int, width: int) -> tuple[Codes, Floats]:
        """Views of rows of codes (count, width), and of their scales (count, 1)."""
        stride, first = code_lines(width) * LINE, line * LINE
        block = self.codes[first : first + count * stride].reshape(count, stride)
        return block[:, :width], block[:, -LINE : 4 - LINE].view(np.float32)

    def pop(self, count: int) -> int:
        """Take lines from the stream: the first of them, a line of the device's memory."""
        first, end = self.streams.popleft() if self.streams else (0, 0)
        if first + count > end:
            cause = f"takes {count} lines from the stream, which has {end - first}"
            raise MachineError("program", f"{cause}: it would wait forever")
        if first + count < end:
            self.streams.appendleft((first + count, end))
        return first
