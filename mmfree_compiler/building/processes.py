"""Child processes that end when the work that started them ends, however it does."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from typing import IO

from mmfree_compiler.interrupts import uninterrupted

_PR_SET_PDEATHSIG = 1  # man 2 prctl


@contextmanager
def running(
    command: Sequence[str],
    stderr: IO[bytes] | int,
    environment: Mapping[str, str] | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """A process without input or output, in a group of its own.

    When the block ends, the group is killed, with what the process has started: a compiler's
    driver starts others. A terminal's Ctrl-C reaches only this process, which then ends the block.
    """
    with ExitStack() as stack:
        with uninterrupted():  # else the process might start and nobody know it
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=stderr,
                env=environment,
                process_group=0,
            )
            stack.enter_context(process)
            stack.callback(_kill, process)
        yield process


def _kill(process: subprocess.Popen[bytes]) -> None:
    with suppress(ProcessLookupError):  # all have ended
        os.killpg(process.pid, signal.SIGKILL)


def end_with(parent: int) -> None:
    """End this process when the one that started it, `parent`, has ended, even if it was killed."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("its parent has ended")
