"""What the launcher needs of a device: memory, and launches of an artifact's kernels.

gpu.py implements it for CUDA; tests implement it with Triton's interpreter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.backends.cuda.facts import Kernel


class Memory(Protocol):
    """Bytes of a device."""

    @property
    def nbytes(self) -> int: ...

    def upload(self, array: NDArray[Any], offset: int = 0) -> None:
        """Copy a C-contiguous array to the bytes from `offset` on."""

    def download(self, array: NDArray[Any], offset: int = 0) -> None:
        """Fill a C-contiguous array with the bytes from `offset` on, made by earlier launches."""

    def copy(self, offset: int, other: Memory, start: int, nbytes: int) -> None:
        """Copy bytes of another memory of the same device."""

    def clear(self, offset: int, nbytes: int) -> None:
        """Set bytes to 0."""

    def free(self) -> None:
        """Release it; it is not used again."""


class Shared(Protocol):
    """Bytes of the host that launches write."""

    @property
    def array(self) -> NDArray[np.uint8]:
        """They have what was written once a mark behind the launch is reached."""


class Mark(Protocol):
    """A place in the order of launches."""

    def set(self) -> None:
        """Put it behind all launches so far."""

    def wait(self) -> None:
        """Wait until the launches in front of it have ended."""


@dataclass(frozen=True)
class Limits:
    """A device's name, bytes per second of its memory (None: unknown), and bytes of its cache."""

    name: str
    memory: float | None
    cache: int


@dataclass(frozen=True)
class Pointer:
    """The byte `offset` of a memory."""

    memory: Memory | Shared
    offset: int = 0


class Executor(Protocol):
    """One device, with the kernels of one build.

    `device` and `stream` are those of device_interface.DeviceLauncher.
    """

    @property
    def device(self) -> tuple[int, int]: ...
    @property
    def stream(self) -> int: ...

    def current(self) -> AbstractContextManager[None]:
        """A block in which this thread uses memory of the device and launches kernels."""

    def allocate(self, **needed: int) -> list[Memory]:
        """Memory by purpose, in bytes. Raises DeviceError, which names them, if it is not free."""

    def borrowed(self, pointer: int, nbytes: int) -> Memory:
        """Memory of the device that somebody else has allocated and frees."""

    def let_wait(self, stream: int | None) -> None:
        """See device_interface.DeviceLauncher."""

    def share(self, nbytes: int) -> Shared:
        """Memory of the host. Raises TargetError if there is too little."""

    def mark(self) -> Mark:
        """A new mark."""

    def load(self, code: NDArray[Any], kernels: Mapping[str, Kernel]) -> None:
        """Make kernels ready to be launched by their names."""

    def launch(self, name: str, grid: tuple[int, int], arguments: Sequence[Pointer]) -> None:
        """Start a kernel when those before it have ended."""

    def on(self, stream: int) -> Executor:
        """The same device, for launches in a stream of somebody else."""

    def finish(self) -> None:
        """Wait until all that it did has ended."""

    def recorded(self, launches: Callable[[], None]) -> Callable[[], None]:
        """A function that makes the same launches again, with the same arguments, faster."""

    def timed(self, pieces: Sequence[Callable[[Executor], None]]) -> Callable[[], list[float]]:
        """Records pieces of launches; a call runs them and returns the seconds of each.

        No launch starts before all in front of it have ended, and each piece has a mark at both
        ends: it takes longer than without, by what a piece without launches takes.
        """

    def seconds(self, work: Callable[[], None]) -> float:
        """Seconds of the device from the begin of the first launch of `work` to the end of all."""

    @property
    def limits(self) -> Limits: ...

    def close(self) -> None:
        """Release the kernels and the device."""
