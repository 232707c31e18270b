"""Measuring a decode step, stage by stage, on this machine."""

from __future__ import annotations

import time
from collections.abc import Callable
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
from mmfree_compiler.backends.cpu.strides import float_stride
from mmfree_compiler.backends.explained import Profile, Rates
from mmfree_compiler.building import cache
from mmfree_compiler.threads import resolve_threads
from mmfree_compiler.wording import counted

ROUNDS = 15  # the fastest one counts: other processes only make a round slower
ROUND_SECONDS = 0.02


def profile(artifact: Artifact, threads: int | None) -> Profile:
    """See explained.Profiler."""
    build = choose(artifact.entry)
    bench = _Bench.of(artifact, build, resolve_threads(threads))
    seconds = bench.stages()
    return Profile(bench.threads, sum(seconds), seconds, bench.rates())


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
        stages = sum(1 for _ in program.stages())
        scratch = aligned_empty(max(64 * threads, 8 * (profiling.HEADER + stages + 1)), np.uint8)
        arrays = [*_rows(artifact), *arenas(facts.memory, threads)[:-1], scratch]
        arguments = [tvm_ffi.from_dlpack(readable(artifact.weights))]
        arguments += [tvm_ffi.from_dlpack(array.reshape(-1)) for array in arrays]
        packed = sum(t.nbytes for t in tensors.values() if t.layout == facts.layout)
        team = min(threads, 1 + packed // BYTES_PER_THREAD)
        cells = scratch[: 8 * (profiling.HEADER + stages + 1)].view(np.int64)
        return cls(artifact, program, library, arguments, cells, team, build.name)

    def call(self, name: str) -> None:
        """One call of a function."""
        self.library[name](*self.arguments, 1, 0, self.threads)

    def stages(self) -> tuple[float, ...]:
        """Seconds of each stage in a decode step, in the fastest round."""
        self.cells[:] = 0
        self.call(profiling.TIMED)
        begun, first = time.perf_counter(), int(self.cells[0])
        rounds = [self._round() for _ in range(ROUNDS)]
        rate = (time.perf_counter() - begun) / max(1, int(self.cells[0]) - first)
        return tuple(float(ticks) * rate for ticks in min(rounds, key=np.sum))

    def _round(self) -> NDArray[np.float64]:
        """Ticks of each stage, the mean of many steps."""
        ticks = self.cells[profiling.HEADER :]
        ticks[:] = 0
        calls = _repeated(lambda: self.call(profiling.TIMED))[1]
        return ticks[:-1] / calls

    def rates(self) -> Rates:
        """What the same threads read and compute at most."""
        known = {profiling.COMPUTE: profiling.computed() * self.threads}
        if any(constant.role == "ternary" for constant in self.program.constants.values()):
            tensors = self.artifact.entry.tensors
            nbytes = profiling.read_span(self.program, tensors)[1]
            known[profiling.READ] = nbytes * profiling.readings(nbytes)
            known[profiling.MULTIPLY] = profiling.multiplied(self.program) * self.threads
        found = {name: amount / self._fastest(name) for name, amount in known.items() if amount}
        return Rates(
            f"measured on this machine with {counted(self.threads, 'thread')}: reading all "
            f"weights in turn, {self.title} products of weights in the first cache, fp32 products "
            "and sums in registers",
            nbytes=found.get(profiling.READ),
            integers=found.get(profiling.MULTIPLY),
            floats=found[profiling.COMPUTE],
        )

    def _fastest(self, name: str) -> float:
        rounds = (_repeated(lambda: self.call(name)) for _ in range(ROUNDS))
        return min(seconds / calls for seconds, calls in rounds)


def _repeated(call: Callable[[], None]) -> tuple[float, int]:
    """Seconds of about ROUND_SECONDS of calls, and their number."""
    start, calls = time.perf_counter(), 0
    while (seconds := time.perf_counter() - start) < ROUND_SECONDS or not calls:
        call()
        calls += 1
    return seconds, calls


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
