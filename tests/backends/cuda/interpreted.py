"""A device whose kernels Triton's interpreter runs, in this process's memory."""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from types import ModuleType
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from mmfree_compiler.backends.cuda.facts import Kernel
from mmfree_compiler.backends.cuda.run.executor import Executor, Limits, Memory, Pointer

DTYPES = {
    "*fp64": torch.float64,
    "*fp32": torch.float32,
    "*fp16": torch.float16,
    "*bf16": torch.bfloat16,
    "*i8": torch.int8,
    "*u8": torch.uint8,
    "*i32": torch.int32,
    "*i64": torch.int64,
}
POISON = 0x7F  # fills new memory: NaN as fp32


@dataclass(frozen=True, eq=False)
class HostMemory:
    """See executor.Memory."""

    tensor: torch.Tensor

    @property
    def nbytes(self) -> int:
        return len(self.tensor)

    @property
    def array(self) -> NDArray[np.uint8]:
        found: NDArray[np.uint8] = self.tensor.numpy()
        return found

    def upload(self, array: NDArray[Any], offset: int = 0) -> None:
        data = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        self.tensor.numpy()[offset : offset + data.size] = data

    def download(self, array: NDArray[Any], offset: int = 0) -> None:
        data = array.reshape(-1).view(np.uint8)
        data[:] = self.tensor.numpy()[offset : offset + data.size]

    def copy(self, offset: int, other: Memory, start: int, nbytes: int) -> None:
        assert isinstance(other, HostMemory)
        self.tensor[offset : offset + nbytes] = other.tensor[start : start + nbytes]

    def clear(self, offset: int, nbytes: int) -> None:
        self.tensor[offset : offset + nbytes] = 0

    def free(self) -> None:
        pass


class NoMark:
    """See executor.Mark: launches end before they return."""

    def set(self) -> None:
        pass

    def wait(self) -> None:
        pass


class InterpretedExecutor:
    """See executor.Executor: runs the kernels of a module that was loaded for the interpreter."""

    def __init__(self, module: ModuleType) -> None:
        self._module = module
        self._kernels: Mapping[str, Kernel] = {}

    device, stream = (1, 0), -1  # as DLPack has memory of the host

    def current(self) -> AbstractContextManager[None]:
        return nullcontext()

    def allocate(self, **needed: int) -> list[Memory]:
        return [HostMemory(torch.full((n,), POISON, dtype=torch.uint8)) for n in needed.values()]

    def borrowed(self, pointer: int, nbytes: int) -> Memory:
        # torch takes no buffer of no bytes.
        data = _bytes(pointer, nbytes) if nbytes else bytearray(1)
        return HostMemory(torch.frombuffer(data, dtype=torch.uint8)[:nbytes])

    def let_wait(self, stream: int | None) -> None:
        """Launches end before they return."""

    def share(self, nbytes: int) -> HostMemory:
        return HostMemory(torch.full((nbytes,), POISON, dtype=torch.uint8))

    def mark(self) -> NoMark:
        return NoMark()

    def load(self, _: NDArray[Any], kernels: Mapping[str, Kernel]) -> None:
        self._kernels = kernels

    def launch(self, name: str, grid: tuple[int, int], arguments: Sequence[Pointer]) -> None:
        kinds = self._kernels[name].parameters
        passed = [_passed(x, kind) for x, kind in zip(arguments, kinds, strict=True)]
        getattr(self._module, name)[grid](*passed)

    def on(self, _: int) -> Executor:
        return self

    def finish(self) -> None:
        """Launches end before they return."""

    def recorded(self, launches: Callable[[], None]) -> Callable[[], None]:
        return launches

    def timed(self, pieces: Sequence[Callable[[Executor], None]]) -> Callable[[], list[float]]:
        """Each piece seems to take its number, in seconds."""

        def run() -> list[float]:
            for piece in pieces:
                piece(self)
            return [float(number) for number in range(1, len(pieces))] + [0.5]

        return run

    def seconds(self, work: Callable[[], None]) -> float:
        work()
        return 1000.0

    limits = Limits("interpreter", 1e9, 0)

    def close(self) -> None:
        pass


def _bytes(pointer: int, nbytes: int) -> Any:
    return (ctypes.c_uint8 * nbytes).from_address(pointer)


def _passed(argument: Pointer, kind: str) -> torch.Tensor:
    memory = argument.memory
    assert isinstance(memory, HostMemory)
    dtype = DTYPES[kind]
    rest = memory.tensor[argument.offset :]
    return rest[: len(rest) // dtype.itemsize * dtype.itemsize].view(dtype)
