"""Optional Protocols of backends that work on arrays of other libraries, in a device's memory.

See interface.py for what every backend has. Devices and streams are those of DLPack.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol, Self, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.artifact import Artifact
from mmfree_compiler.backends.interface import Array, Backend, Batch, Launcher


@dataclass(frozen=True)
class DeviceRows:
    """Rows in the memory of a launcher's device, where another library has an array.

    Token k has row `rows[k]` of the C-contiguous array that begins at the address `pointer`.
    """

    pointer: int
    rows: NDArray[np.intp]

    def __getitem__(self, tokens: slice | NDArray[np.intp]) -> DeviceRows:
        return DeviceRows(self.pointer, self.rows[tokens])


@runtime_checkable
class DeviceLauncher(Launcher, Protocol):
    """A launcher that reads and writes arrays of other libraries in its device's memory."""

    @property
    def device(self) -> tuple[int, int]:
        """Its device, as `__dlpack_device__` tells it."""

    @property
    def stream(self) -> int:
        """The stream in which it works, as `__dlpack__` takes it."""

    def read(self, pointer: int, array: Array) -> None:
        """Fill a C-contiguous array with what the device has at an address."""

    def run_there(
        self,
        batch: Batch,
        states: Any,
        inputs: tuple[DeviceRows, ...],
        outputs: tuple[DeviceRows, ...],
    ) -> None:
        """As `run`, for a `batch` without inputs: they are `inputs`.

        The outputs of wanted token k are put where row k of `outputs` is. The work may still run
        after the call returned: see `let_wait`.
        """

    def let_wait(self, stream: int | None) -> None:
        """Make what is put into another stream from now on wait for the work of this one so far.

        -1 is a stream that does not wait, None the default stream.
        """


@dataclass(frozen=True)
class Tensors:
    """Addresses of C-contiguous tensors on the device of Kernels, at multiples of 16 bytes but for
    the ports.

    `weights` are the bytes of weights.bin, `scratch` the number of bytes that Kernels name, and
    `states` (B, state_width) float32, which are advanced. `inputs` and `outputs` have one for each
    port: (B, T) int64 or (B, T, width) float32.
    """

    weights: int
    scratch: int
    states: int
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]


class Kernels(Protocol):
    """The kernels of an artifact on a device, without memory for them. Threads may share them.

    `device` is that of DLPack, `scratch` in bytes; `state_width` are the float32 numbers of the
    state of a sequence, all zero before the first token.
    """

    @classmethod
    def open(cls, artifact: Artifact, device: int) -> Self:
        """On the device of this number. Raises TargetError, ArtifactError."""

    @property
    def device(self) -> tuple[int, int]: ...
    @property
    def scratch(self) -> int: ...
    @property
    def state_width(self) -> int: ...

    def write(self, pointer: int, array: Array) -> None:
        """Copy a C-contiguous array of the host to an address of the device, and wait for that."""

    def is_prepared(self, batch: int, time: int) -> bool:
        """Whether `launch` neither allocates nor waits, so that a stream can be captured."""

    def prepare(self, batch: int, time: int) -> None:
        """Make what runs of these sizes need; it stays until the kernels are closed."""

    def launch(self, tensors: Tensors, batch: int, time: int, stream: int) -> None:
        """Put a run of `time` tokens of each of `batch` sequences into a stream; all are wanted."""


@runtime_checkable
class Embeddable(Backend, Protocol):
    """A backend whose kernels run in memory and streams of others."""

    def kernels(self) -> type[Kernels]:
        """The class that launches them."""
