"""Runs compiled CUDA kernels by the plans of a build: the calling convention of ../compile.

A kernel's arguments are the pointers that facts.Argument names. Rows of inputs and outputs have no
padding; ../strides.py has those of all other memory, calls.py the indices.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.artifact import Artifact, Build
from mmfree_compiler.backends.cuda.bindings import device_module
from mmfree_compiler.backends.cuda.choose import choose
from mmfree_compiler.backends.cuda.facts import CODE, read_facts
from mmfree_compiler.backends.cuda.run.calls import INDEX_BYTES, Call, Inputs, calls
from mmfree_compiler.backends.cuda.run.decoding import CudaDecoding
from mmfree_compiler.backends.cuda.run.exchange import PortRows, row_bytes
from mmfree_compiler.backends.cuda.run.executor import Executor, Limits
from mmfree_compiler.backends.cuda.run.lane_memory import LanePool
from mmfree_compiler.backends.cuda.run.plans import Places, Runner
from mmfree_compiler.backends.cuda.run.states import CudaStates, StateArena
from mmfree_compiler.backends.cuda.run.timing import StepTimes, step_times
from mmfree_compiler.backends.cuda.strides import OUTPUTS, port_starts
from mmfree_compiler.backends.decoding import Choices
from mmfree_compiler.backends.device_interface import DeviceRows
from mmfree_compiler.backends.interface import Array, Batch
from mmfree_compiler.errors import InputError


class CudaLauncher:
    """Runs one build of an artifact on a device. Calls from several threads run one by one."""

    def __init__(self, artifact: Artifact, build: Build, executor: Executor) -> None:
        """Upload the weights and load the kernels.

        Raises DeviceError when the device has not enough memory, ArtifactError on damaged facts.
        """
        self._manifest, self.build, self._executor = artifact.manifest, build.name, executor
        self._facts = read_facts(build)
        artifact.check_binding(build.members[CODE])
        ternary = [t for t in artifact.entry.tensors.values() if t.role == "ternary"]
        self.weight_bytes = sum(tensor.nbytes for tensor in ternary)
        ports = {"input": self._manifest.inputs, "output": self._manifest.outputs}
        sizes = {name: list(map(row_bytes, each)) for name, each in ports.items()}
        self._starts = starts = {
            "input": port_starts(sizes["input"], self._facts.chunk),
            "output": port_starts(sizes["output"], OUTPUTS, self._facts.output_start),
        }
        needs = {
            "weights": len(artifact.weights),
            "scratch": max(self._facts.scratch, starts["output"][-1]),
            "indices": INDEX_BYTES,
            "input": starts["input"][-1],
        }
        self._allocated = dict(zip(needs, executor.allocate(**needs), strict=True))
        self._memory = self._allocated | {"output": self._allocated["scratch"]}
        with executor.current():
            self._memory["weights"].upload(artifact.weights)
        executor.load(artifact.members[build.members[CODE]], self._facts.kernels)
        self._arena = StateArena(executor, self._manifest.states)
        self._rows = {
            name: [
                PortRows(executor, self._memory[name], start, size)
                for size, start in zip(each, starts[name], strict=False)
            ]
            for name, each in sizes.items()
        }
        self._runners: dict[int, Runner] = {}
        self._recorded_at = self._arena.moves

    @classmethod
    def open(cls, artifact: Artifact, device: int | None = None) -> CudaLauncher:
        """See interface.Launcher. `device` is the number of a GPU; None: the first."""
        if device is not None and (type(device) is not int or device < 0):
            cause = f"is {device!r}, not the number of a GPU"
            raise InputError("option 'device'", cause, "The first GPU is 0")
        opened = device_module().open_device(device or 0)
        from mmfree_compiler.backends.cuda.run.gpu import Gpu  # it imports cuda-bindings too

        build = choose(artifact.entry, opened.info.capability)
        return cls(artifact, build, Gpu(opened))

    @property
    def device_bytes(self) -> int:
        """See interface.OnDevice."""
        return sum(memory.nbytes for memory in (*self._allocated.values(), self._arena.memory))

    def close(self) -> None:
        """See interface.Launcher."""
        self._executor.close()

    def states(self, count: int) -> CudaStates:
        """See interface.Launcher."""
        return CudaStates.zero(self._arena, count)

    def run(self, batch: Batch, states: CudaStates) -> tuple[NDArray[np.float32], ...]:
        """See interface.Launcher. Long inputs are cut into chunks."""
        with self._arena.using():
            made = [self._outputs(wanted) for wanted in self._calls(batch, batch.inputs, states)]
        if len(made) == 1:
            return tuple(made[0])
        return tuple(np.concatenate(rows) for rows in zip(*made, strict=True))

    @cached_property
    def _lanes(self) -> LanePool:
        places = Places(self._memory, self._starts)
        (logits,) = self._manifest.outputs
        return LanePool(self._arena, self._facts, places, logits.width)

    @property
    def most_sequences(self) -> int:
        """See decoding.Decoder."""
        return OUTPUTS

    def decodes(self, choices: Choices) -> bool:  # noqa: ARG002 - the interface
        """See decoding.Decoder: all of them."""
        return True

    def decode(
        self, batch: Batch, choices: Choices, states: CudaStates, steps: int
    ) -> CudaDecoding:
        """See decoding.Decoder."""
        return CudaDecoding(self._lanes, batch, choices, states, steps)

    @property
    def device(self) -> tuple[int, int]:
        """See device_interface.DeviceLauncher."""
        return self._executor.device

    @property
    def stream(self) -> int:
        """See device_interface.DeviceLauncher."""
        return self._executor.stream

    def read(self, pointer: int, array: Array) -> None:
        """See device_interface.DeviceLauncher."""
        with self._arena.using():
            self._executor.borrowed(pointer, array.nbytes).download(array)

    def run_there(
        self,
        batch: Batch,
        states: CudaStates,
        inputs: tuple[DeviceRows, ...],
        outputs: tuple[DeviceRows, ...],
    ) -> None:
        """See device_interface.DeviceLauncher."""
        with self._arena.using():
            done = 0
            for wanted in self._calls(batch, inputs, states):
                for port, rows in zip(self._rows["output"], outputs, strict=True):
                    port.give(rows[done : done + wanted])
                done += wanted

    def let_wait(self, stream: int | None) -> None:
        """See device_interface.DeviceLauncher."""
        with self._arena.using():
            self._executor.let_wait(stream)

    def _calls(self, batch: Batch, inputs: Inputs, states: CudaStates) -> Iterator[int]:
        """Runs a batch in calls; yields how many outputs each made, in the rows of the ports."""
        for call in calls(batch, inputs, states.rows[batch.slots], self._facts.chunk):
            self._call(call)
            yield len(call.wanted)

    def step_times(self, batch: Batch) -> StepTimes:
        """Of a batch of one token: see timing.py."""
        states = self.states(1)
        with self._arena.using():
            (call,) = calls(batch, batch.inputs, states.rows[batch.slots], self._facts.chunk)
            number = self._filled(call)
            runner, counts = self._runner(number), call.counts
            return step_times(
                self._executor,
                self._facts.plans[number],
                self._places,
                counts,
                lambda: runner(counts),
            )

    @property
    def limits(self) -> Limits:
        """Those of the device."""
        return self._executor.limits

    def _call(self, call: Call) -> None:
        self._runner(self._filled(call))(call.counts)

    def _filled(self, call: Call) -> int:
        """Fill the inputs of a call; the number of the plan for it."""
        self._memory["indices"].upload(call.indices())
        for port, rows in zip(self._rows["input"], call.inputs, strict=True):
            port.fill(rows)
        return next(n for n, plan in enumerate(self._facts.plans) if call.fits(plan))

    @property
    def _places(self) -> Places:
        return Places(self._memory | {"states": self._arena.memory}, self._starts)

    def _runner(self, number: int) -> Runner:
        if self._recorded_at != self._arena.moves:
            self._runners.clear()
            self._recorded_at = self._arena.moves
        if number not in self._runners:
            plan = self._facts.plans[number]
            self._runners[number] = Runner(self._executor, plan, self._places)
        return self._runners[number]

    def _outputs(self, wanted: int) -> list[NDArray[np.float32]]:
        outputs = []
        for port in self._rows["output"]:
            rows = np.empty((wanted, port.row_bytes // 4), np.float32)
            port.memory.download(rows, port.start)
            outputs.append(rows)
        return outputs
