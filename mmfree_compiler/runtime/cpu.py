"""Launches compiled CPU kernels: the calling convention of backends/cpu, from the caller's side.

A library has two functions, "decode" (one token) and "prefill" (up to `chunk` tokens). Both take
flat tensors and integers, in this order:

    weights                uint8, weights.bin
    each input             float32 rows of the port's stride; not token ids, which the kernels
                           never see:
    each table             uint8, of layout "table": the rows that the token's id names, one of
                           each part
    each output            float32 rows of the port's stride, for tokens `first` and later
    slots                  int32, the state row of each token
    state                  float32, rows of `state_width`
    shared, private, codes rows of float32, float32, int8 between the stages
    scratch                uint8, each thread's own: a panel's sums, digits for matrix units
    tokens, first, threads how many tokens; the first that has output rows; how many threads
"""

from __future__ import annotations

import ctypes
import os
import tempfile
import threading
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import DTypeLike, NDArray

from mmfree_compiler.artifact import Artifact, MemoryPlan, Variant, aligned_empty
from mmfree_compiler.errors import ArtifactError
from mmfree_compiler.layouts import LAYOUTS
from mmfree_compiler.program import TABLE
from mmfree_compiler.runtime.cpu_features import choose
from mmfree_compiler.runtime.ffi import tvm_ffi
from mmfree_compiler.runtime.pace import Pace

Array = NDArray[np.generic]

ABI = 4  # the number of the convention above; a change of it is a new number
# Packed weights that a thread of a decode step should at least read (0.2 ms from DRAM): with less,
# the step gains little from another thread, and waits for it when the machine is busy.
BYTES_PER_THREAD = 4 << 20


class CpuLauncher:
    """Runs an artifact's kernels. Calls from several threads follow each other."""

    def __init__(self, artifact: Artifact, threads: int) -> None:
        """Load the variant that fits this machine.

        Raises TargetError when none does, ArtifactError when the library does not load.
        """
        manifest = artifact.manifest
        self.variant: Variant = choose(manifest.variants)
        if self.variant.abi != ABI:
            raise ArtifactError(
                self.variant.member,
                f"follows calling convention {self.variant.abi}, this runtime knows {ABI}",
                "Compile the model with this version",
            )
        weights = sum(t.nbytes for t in manifest.tensors.values() if t.layout in LAYOUTS)
        self._chunk = manifest.memory.chunk
        # One for decode; one for each doubling of tokens, since a token costs less among many.
        self._paces = [Pace(min(threads, 1 + weights // BYTES_PER_THREAD))]
        self._paces += [Pace(threads) for _ in range(self._chunk.bit_length())]
        self._library = _load_library(artifact.members[self.variant.member])
        self._decode, self._prefill = (self._function(name) for name in ("decode", "prefill"))
        self._weights = tvm_ffi.from_dlpack(_readable(artifact.members["weights.bin"]))
        self._scratch = _scratch(manifest.memory, threads)
        tables = [artifact.table(n) for n, t in manifest.tensors.items() if t.layout == TABLE]
        self._tables = [(t, _reserve((self._chunk, *t.row_shape), np.uint8)) for t in tables]
        self._lock = threading.Lock()
        _LAUNCHERS.add(self)

    def renew_lock(self) -> None:
        """In a forked child: the thread that may have held the lock is not there."""
        self._lock = threading.Lock()

    def _function(self, name: str) -> Any:
        try:
            return self._library[name]
        except AttributeError:
            raise ArtifactError(
                self.variant.member, f"has no function {name}", "Compile the model again"
            ) from None

    def run(
        self,
        inputs: tuple[Array, ...],
        slots: NDArray[np.int32],
        state: NDArray[np.float32],
        first: int,
        outputs: tuple[Array, ...],
    ) -> None:
        """See runtime/launcher.py. Long inputs are cut into chunks of `manifest.memory.chunk`."""
        total = len(slots)
        for start in range(0, total, self._chunk):
            stop = min(start + self._chunk, total)
            skip = min(max(first - start, 0), stop - start)
            done = max(start - first, 0)
            self._call(
                [flat[start:stop] for flat in inputs],
                slots[start:stop],
                state,
                skip,
                [rows[done : done + stop - start - skip] for rows in outputs],
            )

    def _call(
        self,
        inputs: list[Array],
        slots: NDArray[np.int32],
        state: NDArray[np.float32],
        first: int,
        outputs: list[Array],
    ) -> None:
        count = len(slots)
        alone = count == 1 and first == 0
        function = self._decode if alone else self._prefill
        pace = self._paces[0 if alone else count.bit_length()]
        with self._lock:
            # Token ids are the only input of a program that has any.
            rows = [table.read(inputs[0], room) for table, room in self._tables] or inputs
            arrays = [*rows, *outputs, slots, state]
            pace.start()
            function(
                self._weights,
                *(array.reshape(-1) for array in arrays),
                *self._scratch,
                count,
                first,
                pace.threads,
            )
            pace.stop(count)


_LAUNCHERS: WeakSet[CpuLauncher] = WeakSet()


def _renew_locks() -> None:
    for launcher in _LAUNCHERS:
        launcher.renew_lock()


os.register_at_fork(after_in_child=_renew_locks)


def _scratch(plan: MemoryPlan, threads: int) -> list[Any]:
    """The planned arenas."""
    rows = max(plan.chunk, threads)
    sizes = (
        (plan.shared * plan.chunk, np.float32),
        (plan.private * rows, np.float32),
        (plan.codes * rows, np.int8),
        (plan.scratch * threads, np.uint8),
    )
    return [tvm_ffi.from_dlpack(_reserve(size, dtype)) for size, dtype in sizes]


def _reserve(shape: int | tuple[int, ...], dtype: DTypeLike) -> NDArray[Any]:
    """Uninitialized memory, resident where it is used. Raises ArtifactError when there is none."""
    try:
        return aligned_empty(shape, dtype)
    except (MemoryError, ValueError) as error:  # ValueError: more than an address can name
        cause = f"needs too much memory: {error}"
        raise ArtifactError("memory plan", cause, "Get or compile the file again") from error


def _load_library(code: NDArray[np.uint8]) -> Any:
    """dlopen wants a file; it keeps the library mapped when the file is gone."""
    with tempfile.TemporaryDirectory(prefix="mmfree-") as folder:
        path = Path(folder, "kernels.so")
        path.write_bytes(code.data)
        try:
            return tvm_ffi.load_module(path, keep_module_alive=False)
        except Exception as error:  # tvm_ffi raises several unrelated types here
            raise ArtifactError(
                "the kernels' library", f"does not load: {error}", "Compile the model again"
            ) from error


def _readable(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same bytes in an array that says it is writable: DLPack refuses one that is mapped
    read-only, and kernels only read it. It keeps `array` alive."""
    if array.flags.writeable:
        return array
    cells = (ctypes.c_uint8 * array.size).from_address(array.ctypes.data)
    cells._mapping = array  # type: ignore[attr-defined]  # what the memory belongs to
    return np.ctypeslib.as_array(cells)
