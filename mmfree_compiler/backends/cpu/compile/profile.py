"""Measuring a decode step, stage by stage, on this machine."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmfree_compiler.artifact import Artifact, aligned_empty
from mmfree_compiler.backends.cpu.choose import choose
from mmfree_compiler.backends.cpu.compile import profiling
from mmfree_compiler.backends.cpu.compile.build import Job, Recipe
from mmfree_compiler.backends.cpu.compile.isa import tuned
from mmfree_compiler.backends.cpu.compile.planned import PlannedProgram
from mmfree_compiler.backends.cpu.compile.tuning import Tuning
from mmfree_compiler.backends.cpu.facts import CpuBuild
from mmfree_compiler.backends.cpu.run.ffi import tvm_ffi
from mmfree_compiler.backends.cpu.run.launcher import BYTES_PER_THREAD
from mmfree_compiler.backends.cpu.run.library import load_library, readable
from mmfree_compiler.backends.cpu.run.scratch import arenas
from mmfree_compiler.backends.cpu.run.states import CpuStates
from mmfree_compiler.backends.cpu.strides import LINE, float_stride
from mmfree_compiler.backends.explained import Profile, Rates
from mmfree_compiler.building import cache
from mmfree_compiler.threads import resolve_threads
from mmfree_compiler.wording import counted

ROUNDS = 60  # the fastest one of each counts: other processes only make a round slower
ROUND_SECONDS = 0.004


def profile(artifact: Artifact, threads: int | None) -> Profile:
    """See explained.Profiler."""
    build = choose(artifact.entry)
    bench = _Bench.of(artifact, build, resolve_threads(threads))
    work, begun, first = bench.work(), time.perf_counter(), bench.started()
    rounds = [(bench.ticks(), [bench.seconds(name) for name in work]) for _ in range(ROUNDS)]
    tick = (time.perf_counter() - begun) / (bench.noted() - first)
    stages = tick * np.min([ticks for ticks, _ in rounds], axis=0)
    fastest = np.min([seconds for _, seconds in rounds], axis=0).tolist()
    found = {
        name: amount / seconds
        for (name, amount), seconds in zip(work.items(), fastest, strict=True)
    }
    return Profile(bench.threads, float(stages.sum()), tuple(stages.tolist()), bench.rates(found))


@dataclass(frozen=True)
class _Bench:
    """The functions of profiling.library, and `arguments` for one token of one sequence.

    `cells` are the int64 numbers of scratch (see profiling). `program` reads one layout.
    """

    artifact: Artifact
    program: PlannedProgram
    library: Any
    arguments: list[Any]
    cells: NDArray[np.int64]
    threads: int
    title: str

    @classmethod
    def of(cls, artifact: Artifact, build: CpuBuild, threads: int) -> _Bench:
        planned, facts, tensors = artifact.program, build.facts, artifact.entry.tensors
        assert isinstance(planned, PlannedProgram)
        recipe = Recipe(facts.layout, Tuning(**facts.tuning))
        job = Job.of(planned, tensors, {build.name: recipe})
        program, isa = job.read_by(build.name), tuned(build.name, recipe.tuning)
        key = cache.key(job.key(build.name), profiling.__name__)
        code = cache.get(key, lambda: profiling.library(program, isa, tensors))
        library = load_library(np.frombuffer(code, np.uint8))
        notes, stages = profiling.notes_bytes(program), sum(1 for _ in program.stages())
        scratch = aligned_empty(notes + LINE * threads, np.uint8)
        arrays = [*_rows(artifact), *arenas(facts.memory, threads)[:-1], scratch]
        arguments = [tvm_ffi.from_dlpack(readable(artifact.weights))]
        arguments += [tvm_ffi.from_dlpack(array.reshape(-1)) for array in arrays]
        packed = sum(t.nbytes for t in tensors.values() if t.layout == facts.layout)
        team = min(threads, 1 + packed // BYTES_PER_THREAD)
        cells = scratch[:notes].view(np.int64)[: profiling.HEADER + stages + 1]
        return cls(artifact, program, library, arguments, cells, team, build.name)

    def call(self, name: str) -> None:
        """One call of a function."""
        self.library[name](*self.arguments, 1, 0, self.threads)

    def started(self) -> int:
        """The ticks at the end of a first decode step."""
        self.cells[:] = 0
        self.call(profiling.TIMED)
        return self.noted()

    def noted(self) -> int:
        """The ticks at the end of the last decode step."""
        return int(self.cells[0])

    def ticks(self) -> NDArray[np.float64]:
        """Ticks of each stage in a decode step, the mean of many."""
        ticks = self.cells[profiling.HEADER :]
        ticks[:] = 0
        calls = self._repeated(profiling.TIMED)
        return ticks[:-1] / len(calls)

    def seconds(self, name: str) -> float:
        """Seconds of a call, the fastest of many."""
        return min(self._repeated(name))

    def _repeated(self, name: str) -> list[float]:
        """The seconds of each of some calls."""
        found: list[float] = []
        while sum(found) < ROUND_SECONDS:
            start = time.perf_counter()
            self.call(name)
            found.append(time.perf_counter() - start)
        return found

    def work(self) -> dict[str, int]:
        """What a call of each other function reads or computes."""
        found = {profiling.COMPUTE: profiling.computed() * self.threads}
        if any(constant.role == "ternary" for constant in self.program.constants.values()):
            nbytes = profiling.read_span(self.program, self.artifact.entry.tensors)[1]
            found[profiling.READ] = nbytes * profiling.readings(nbytes)
            found[profiling.MULTIPLY] = profiling.multiplied(self.program) * self.threads
        return found

    def rates(self, found: Mapping[str, float]) -> Rates:
        """What bounds the same threads, by the work per second of the other functions."""
        return Rates(
            f"measured on this machine with {counted(self.threads, 'thread')}: reading all "
            f"weights in turn, {self.title} products of weights in the first cache, fp32 products "
            "and sums in registers",
            nbytes=found.get(profiling.READ) or None,
            integers=found.get(profiling.MULTIPLY),
            floats=found[profiling.COMPUTE],
        )


def _rows(artifact: Artifact) -> list[NDArray[Any]]:
    """Rows of inputs or of tables, of outputs, the slot and the state of one token."""
    manifest, tensors = artifact.manifest, artifact.entry.tensors
    tables = [artifact.table(name) for name, t in tensors.items() if t.role == "table"]
    zero = np.zeros(1, np.int64)
    rows: list[NDArray[Any]] = [
        table.read(zero, aligned_empty((1, *table.row_shape), np.uint8)) for table in tables
    ]
    floats = [port for port in manifest.inputs if port.dtype == "float32"]
    rows += [np.ones(float_stride(port.width), np.float32) for port in floats]
    rows += [aligned_empty(float_stride(port.width), np.float32) for port in manifest.outputs]
    states = CpuStates.zero(manifest.states, 1)
    return [*rows, np.zeros(1, np.int32), states.array]
