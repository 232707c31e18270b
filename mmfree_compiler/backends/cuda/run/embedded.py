"""Launches of a build's kernels in memory and streams of others, which may be captured.

Nothing is copied: kernels read and write the tensors of a call. What they need besides is made by
`prepare`, once for a number of sequences and tokens: the indices of calls.py, which depend on these
alone.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from mmfree_compiler.artifact import Artifact, Build, Port
from mmfree_compiler.backends.cuda.bindings import device_module
from mmfree_compiler.backends.cuda.choose import choose
from mmfree_compiler.backends.cuda.facts import CODE, Argument, Over, Plan, read_facts
from mmfree_compiler.backends.cuda.run.calls import INDEX_BYTES, calls
from mmfree_compiler.backends.cuda.run.exchange import row_bytes
from mmfree_compiler.backends.cuda.run.executor import Executor, Memory, Pointer
from mmfree_compiler.backends.cuda.run.plans import Places, each_launch, launch
from mmfree_compiler.backends.cuda.strides import state_offsets
from mmfree_compiler.backends.device_interface import Tensors
from mmfree_compiler.backends.interface import Array, Batch

Sizes = tuple[int, int]  # sequences, tokens of each


@dataclass(frozen=True)
class _Prepared:
    """A call that begins at token `first` of a run: its plan, indices and numbers of tokens."""

    first: int
    plan: Plan
    indices: Memory
    counts: dict[Over, int]


@dataclass(frozen=True)
class _Places(Places):
    """The memory of a call; each port has its own, of which `rows` are those of the call."""

    rows: Mapping[str, list[Pointer]]

    def pointer(self, argument: Argument, iteration: int) -> Pointer:
        if argument.space in self.rows:
            return self.rows[argument.space][argument.offset]
        return super().pointer(argument, iteration)


class CudaKernels:
    """See device_interface.Kernels."""

    def __init__(self, artifact: Artifact, build: Build, executor: Executor) -> None:
        """Load the kernels. Raises ArtifactError on damaged facts."""
        self._manifest, self._executor = artifact.manifest, executor
        self._facts = read_facts(build)
        artifact.check_binding(build.members[CODE])
        executor.load(artifact.members[build.members[CODE]], self._facts.kernels)
        self._weight_bytes = len(artifact.weights)
        self._prepared: dict[Sizes, list[_Prepared]] = {}
        self._lock = threading.Lock()
        self.device, self.scratch = executor.device, self._facts.scratch
        _, self.state_width = state_offsets(self._manifest.states)

    @classmethod
    def open(cls, artifact: Artifact, device: int) -> CudaKernels:
        """See device_interface.Kernels."""
        opened = device_module().open_device(device)
        from mmfree_compiler.backends.cuda.run.gpu import Gpu  # it imports cuda-bindings too

        return cls(artifact, choose(artifact.entry, opened.info.capability), Gpu(opened))

    def write(self, pointer: int, array: Array) -> None:
        """See device_interface.Kernels."""
        with self._lock, self._executor.current():
            self._executor.borrowed(pointer, array.nbytes).upload(array)
            self._executor.finish()

    def is_prepared(self, batch: int, time: int) -> bool:
        """See device_interface.Kernels."""
        return (batch, time) in self._prepared

    def prepare(self, batch: int, time: int) -> None:
        """See device_interface.Kernels."""
        with self._lock, self._executor.current():
            if (batch, time) not in self._prepared:
                self._prepared[batch, time] = list(self._calls(Batch.whole((), (batch, time))))
                self._executor.finish()

    def launch(self, tensors: Tensors, batch: int, time: int, stream: int) -> None:
        """See device_interface.Kernels."""
        self.prepare(batch, time)
        with self._lock, self._executor.current():
            executor, sizes = self._executor.on(stream), (batch, time)
            for call in self._prepared[sizes]:
                places = self._places(tensors, sizes, call)
                launch(executor, each_launch(call.plan), places, call.counts)

    def _calls(self, batch: Batch) -> Iterator[_Prepared]:
        first = 0
        for call in calls(batch, (), batch.slots, self._facts.chunk):
            (indices,) = self._executor.allocate(indices=INDEX_BYTES)
            indices.upload(call.indices())
            plan = next(plan for plan in self._facts.plans if call.fits(plan))
            yield _Prepared(first, plan, indices, call.counts)
            first += len(call.rows)

    def _places(self, tensors: Tensors, sizes: Sizes, call: _Prepared) -> _Places:
        borrowed, tokens = self._executor.borrowed, sizes[0] * sizes[1]

        def rows(port: Port, pointer: int) -> Pointer:
            size = row_bytes(port)
            return Pointer(borrowed(pointer, tokens * size), call.first * size)

        memory = {
            "weights": borrowed(tensors.weights, self._weight_bytes),
            "scratch": borrowed(tensors.scratch, self.scratch),
            "states": borrowed(tensors.states, 4 * sizes[0] * self.state_width),
            "indices": call.indices,
        }
        manifest = self._manifest
        ports = {
            "input": list(map(rows, manifest.inputs, tensors.inputs)),
            "output": list(map(rows, manifest.outputs, tensors.outputs)),
        }
        return _Places(memory, {}, ports)
