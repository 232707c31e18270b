"""What a machine looks like from the host: a memory, and programs that run on it.

The simulator is one transport; a board's driver or a verilated model is another.
"""

from __future__ import annotations

from typing import Protocol

from mmfree_compiler.backends.fpga.isa.machine import Bytes, Run


class Transport(Protocol):
    """A machine whose memory holds the weights."""

    def write(self, first: int, lines: Bytes) -> None:
        """Write lines (n, 64) to the device's memory, behind the weights."""

    def read(self, first: int, count: int) -> Bytes:
        """A copy of lines of the device's memory, (count, 64)."""

    def run(self, words: Bytes, run: Run) -> None:
        """Write the registers, and run a program to its end.

        Raises MachineError on what the machine cannot do, ArtifactError on malformed words.
        """
