"""Runs compiled CPU kernels: the calling convention of ../compile, from the caller's side.

A library has two functions, "decode" (one token) and "prefill" (up to `chunk` tokens). Both take
flat tensors and integers, in this order:

    weights                uint8, the constants of the target
    each input             float32 rows of the value's stride; not token ids, which the kernels
                           never see
    each table             uint8, the rows for the tokens' ids, one of each part
    each output            float32 rows of the value's stride, for tokens `first` and later
    slots                  int32, the state row of each token
    state                  float32, rows of `state_width`
    shared, private, codes rows of float32, float32, int8 between the stages
    scratch                uint8, per thread: a panel's sums, unpacked digits
    tokens, first, threads how many tokens; the first that has output rows; how many threads

../strides.py has the strides and the places of states.
"""

from __future__ import annotations

import os
import threading
from typing import Any
from weakref import WeakSet

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.artifact import Artifact, aligned_empty
from mmfree_compiler.backends.cpu.choose import choose
from mmfree_compiler.backends.cpu.facts import KERNELS
from mmfree_compiler.backends.cpu.run.ffi import tvm_ffi
from mmfree_compiler.backends.cpu.run.library import load_library, readable
from mmfree_compiler.backends.cpu.run.scratch import arenas, reserve
from mmfree_compiler.backends.cpu.run.states import CpuStates
from mmfree_compiler.backends.cpu.run.team_size import TeamSize
from mmfree_compiler.backends.cpu.run.wanted import wanted_last
from mmfree_compiler.backends.cpu.strides import float_stride
from mmfree_compiler.backends.interface import Array, Batch
from mmfree_compiler.errors import ArtifactError
from mmfree_compiler.threads import resolve_threads

# The least packed weights per thread of a decode step (0.2 ms to read from DRAM). With less, one
# more thread gains little, and the step waits for it when the machine is busy.
BYTES_PER_THREAD = 4 << 20


class CpuLauncher:
    """Runs an artifact's kernels. Calls from several threads run one after another."""

    def __init__(self, artifact: Artifact, threads: int) -> None:
        """Load the build that fits this machine.

        Raises TargetError when none does, ArtifactError when the library does not load or was not
        made for the manifest, on which the sizes of all memory here depend.
        """
        self._manifest, tensors = artifact.manifest, artifact.entry.tensors
        chosen = choose(artifact.entry)
        self.build, self.threads = chosen.name, threads
        plan, self._member = chosen.facts.memory, chosen.build.members[KERNELS]
        self._chunk = plan.chunk
        self._strides = [float_stride(port.width) for port in self._manifest.outputs]
        packed = [t for t in tensors.values() if t.layout == chosen.facts.layout]
        self.weight_bytes = sum(tensor.nbytes for tensor in packed)
        # One for decode, then one per doubling of tokens, since a token costs less among many.
        self._teams = [TeamSize(min(threads, 1 + self.weight_bytes // BYTES_PER_THREAD))]
        self._teams += [TeamSize(threads) for _ in range(self._chunk.bit_length())]
        self._check_unchanged = artifact.check_unchanged
        artifact.check_binding(self._member)
        self._library = load_library(artifact.members[self._member])
        self._decode, self._prefill = (self._function(name) for name in ("decode", "prefill"))
        self._weights = tvm_ffi.from_dlpack(readable(artifact.weights))
        self._scratch = [tvm_ffi.from_dlpack(arena) for arena in arenas(plan, threads)]
        tables = [artifact.table(n) for n, t in tensors.items() if t.role == "table"]
        self._tables = [(t, reserve((self._chunk, *t.row_shape), np.uint8)) for t in tables]
        self._lock = threading.Lock()
        _LAUNCHERS.add(self)

    @classmethod
    def open(cls, artifact: Artifact, threads: int | None = None) -> CpuLauncher:
        """See interface.Launcher. `threads` of None: one per CPU that the process may use."""
        return cls(artifact, resolve_threads(threads))

    def close(self) -> None:
        """Does nothing: memory and library are released with the object."""

    def renew_lock(self) -> None:
        """For a forked child, which has no other threads, but may have inherited a held lock."""
        self._lock = threading.Lock()

    def _function(self, name: str) -> Any:
        try:
            return self._library[name]
        except AttributeError:
            raise ArtifactError(
                self._member, f"has no function {name}", "Compile the model again"
            ) from None

    def states(self, count: int) -> CpuStates:
        """See interface.Launcher."""
        return CpuStates.zero(self._manifest.states, count)

    def run(self, batch: Batch, states: CpuStates) -> tuple[NDArray[np.float32], ...]:
        """See interface.Launcher. Long inputs are cut into chunks.

        Raises ArtifactError when the file that the weights are mapped from was changed.
        """
        self._check_unchanged()
        batch, first, found = wanted_last(batch)
        inputs, slots = [_padded(x) for x in batch.inputs], batch.slots
        total = len(slots)
        outputs = [aligned_empty((total - first, stride), np.float32) for stride in self._strides]
        for start in range(0, total, self._chunk):
            stop = min(start + self._chunk, total)
            skip = min(max(first - start, 0), stop - start)
            done = max(start - first, 0)
            self._call(
                [flat[start:stop] for flat in inputs],
                slots[start:stop],
                states.array,
                skip,
                [rows[done : done + stop - start - skip] for rows in outputs],
            )
        ports = self._manifest.outputs
        return tuple(
            (rows if found is None else rows[found])[:, : port.width]
            for rows, port in zip(outputs, ports, strict=True)
        )

    def _call(
        self,
        inputs: list[Array],
        slots: NDArray[np.int32],
        state: NDArray[np.float32],
        first: int,
        outputs: list[NDArray[np.float32]],
    ) -> None:
        count = len(slots)
        decodes = count == 1 and first == 0
        function = self._decode if decodes else self._prefill
        team = self._teams[0 if decodes else count.bit_length()]
        with self._lock:
            rows = self._table_rows(inputs[0]) if self._tables else inputs
            arrays = [*rows, *outputs, slots, state]
            team.start()
            function(
                self._weights,
                *(array.reshape(-1) for array in arrays),
                *self._scratch,
                count,
                first,
                team.threads,
            )
            team.stop(count)

    def _table_rows(self, ids: Array) -> list[Array]:
        """The rows of each table for token ids, which are then the only input."""
        return [table.read(ids, rows) for table, rows in self._tables]


_LAUNCHERS: WeakSet[CpuLauncher] = WeakSet()


def _renew_locks() -> None:
    for launcher in _LAUNCHERS:
        launcher.renew_lock()


os.register_at_fork(after_in_child=_renew_locks)


def _padded(rows: Array) -> Array:
    """`rows` as kernels read them: unchanged if possible, else copied to rows of their stride.

    DLPack does not accept read-only arrays.
    """
    if rows.ndim == 1:
        return np.require(rows, np.int64, ["C", "A", "W"])
    stride = float_stride(rows.shape[1])
    whole = stride == rows.shape[1] and rows.ctypes.data % 64 == 0
    if whole and rows.flags.c_contiguous and rows.flags.writeable:
        return rows
    padded = aligned_empty((len(rows), stride), np.float32)
    padded[:, : rows.shape[1]] = rows
    padded[:, rows.shape[1] :] = 0
    return padded
